//! Model files: catalogue, download, inspection before llama.cpp sees them.
