//! llama.cpp's chat templates. Not here: what is laid out by them (`template`).

use llama_cpp_sys_2 as sys;
use std::ffi::CStr;

/// Lays `messages` (role, content) out by a chat template, with the opening of the answer at the end.
/// `None` when llama.cpp does not know the template.
pub fn apply_chat_template(template: &CStr, messages: &[(&CStr, &CStr)]) -> Option<String> {
    let chat: Vec<_> = messages
        .iter()
        .map(|(role, content)| sys::llama_chat_message { role: role.as_ptr(), content: content.as_ptr() })
        .collect();
    let room = messages.iter().map(|(_, c)| c.count_bytes()).sum::<usize>() * 2 + 4096;
    let mut buffer = vec![0u8; room];
    // SAFETY: all strings are NUL-terminated and outlive the call; at most `len` bytes are written
    // (llama.h: llama_chat_apply_template).
    let n = unsafe {
        sys::llama_chat_apply_template(
            template.as_ptr(),
            chat.as_ptr(),
            chat.len(),
            true,
            buffer.as_mut_ptr().cast(),
            i32::try_from(buffer.len()).unwrap_or(i32::MAX),
        )
    };
    let n = usize::try_from(n).ok().filter(|n| *n <= buffer.len())?;
    buffer.truncate(n);
    String::from_utf8(buffer).ok()
}
