//! What of a model goes to a GPU, by what is free there, before anything is loaded.
//! Not here: how much is free (`backend`), loading (`worker`), what a model weighs (`models::inspect`).

use serde::{Deserialize, Serialize};

/// Kept free for the graphs' buffers (0.4 GiB were measured for an 8B model, one frame and batches of 512) and for others.
const RESERVE: u64 = 768 << 20;

/// What a model takes, from its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelWeight {
    /// Sizes of the files.
    pub language_bytes: u64,
    pub vision_bytes: u64,
    /// Layers of the language model.
    pub layers: u32,
    /// Keys and values of one cell in one layer, in 16 bits.
    pub cell_bytes: u64,
}

/// Where the model goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Layers of the language model on the GPU, the output counted as one; negative for all.
    pub layers: i32,
    /// The vision tower is there too.
    pub vision: bool,
    /// What does not fit, and what would help.
    pub sentence: Option<String>,
}

impl Plan {
    /// As the person asked.
    pub fn asked(layers: i32) -> Self {
        Self { layers, vision: layers != 0, sentence: None }
    }

    /// The layers in words, of a model that has `layers` and an output.
    pub fn share(&self, layers: Option<u32>) -> String {
        let all = layers.map(|n| n + 1);
        match (u32::try_from(self.layers), all) {
            (Err(_), None) => "all".to_owned(),
            (Err(_), Some(all)) => format!("{all} of {all}"),
            (Ok(n), None) => n.to_string(),
            (Ok(n), Some(all)) => format!("{} of {all}", n.min(all)),
        }
    }
}

/// As much as fits into `free` bytes, with `cells` cells of context: the vision tower first, for every frame goes through
/// all of it.
pub fn plan(weight: &ModelWeight, cells: u64, free: u64) -> Plan {
    let all = u64::from(weight.layers) + 1;
    let layer = weight.language_bytes / all + weight.cell_bytes * cells;
    let fixed = weight.vision_bytes + RESERVE;
    let fit = free.saturating_sub(fixed) / layer.max(1);
    if fit >= all {
        return Plan::asked(-1);
    }
    let needed = fixed + layer * all;
    let vision = free >= fixed;
    let layers = if vision { i32::try_from(fit).unwrap_or(0) } else { 0 };
    let what = match (vision, layers) {
        (false, _) => "nothing goes there".to_owned(),
        (true, 0) => "only the vision tower goes there".to_owned(),
        (true, n) => format!("the vision tower and {n} of {all} layers go there"),
    };
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let sentence = format!(
        "the model needs {:.1} GiB of the GPU's memory and {:.1} GiB are free: {what}, the processor does the rest, slowly; \
         a smaller quantization, CONTEXT_TOKENS or ENGINE_SLOTS would take less",
        gib(needed),
        gib(free)
    );
    Plan { layers, vision, sentence: Some(sentence) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    /// MiniCPM-o 4.5 in Q4_K_M: 36 layers, 8 heads of 128 for keys and values.
    const MODEL: ModelWeight =
        ModelWeight { language_bytes: 4_790 << 20, vision_bytes: 1_046 << 20, layers: 36, cell_bytes: 4096 };

    #[test]
    fn what_was_measured_fits_where_it_fitted() {
        // An engine with 8k of context took 7,058 MiB of an H100.
        assert_eq!(plan(&MODEL, 8192, 79 * GIB), Plan::asked(-1));
        assert_eq!(plan(&MODEL, 8192, 8 * GIB), Plan::asked(-1));
        assert!(plan(&MODEL, 8192, 7 * GIB).sentence.is_some());
    }

    #[test]
    fn the_less_is_free_the_less_goes_there_and_it_is_said() {
        let mut before = i32::MAX;
        for gib in (0..8).rev() {
            let plan = plan(&MODEL, 8192, gib * GIB);
            if plan.layers >= 0 {
                assert!(plan.layers <= before, "{gib} GiB: {plan:?}");
                before = plan.layers;
                let taken = RESERVE
                    + if plan.vision { MODEL.vision_bytes } else { 0 }
                    + plan.layers as u64 * (MODEL.language_bytes / 37 + 4096 * 8192);
                assert!(!plan.vision || taken <= gib * GIB, "{gib} GiB: {taken}");
                let sentence = plan.sentence.unwrap();
                assert!(sentence.contains("are free") && sentence.contains("would take less"), "{sentence}");
            }
        }
        let none = plan(&MODEL, 8192, GIB);
        assert_eq!((none.layers, none.vision), (0, false));
        let eyes = plan(&MODEL, 8192, 1_900 << 20);
        assert_eq!((eyes.layers, eyes.vision), (0, true));
        assert!(eyes.sentence.unwrap().contains("only the vision tower"));
    }

    #[test]
    fn the_share_is_told() {
        assert_eq!(Plan::asked(-1).share(Some(36)), "37 of 37");
        assert_eq!(Plan::asked(99).share(Some(36)), "37 of 37");
        assert_eq!(Plan::asked(12).share(Some(36)), "12 of 37");
        assert_eq!(Plan::asked(-1).share(None), "all");
    }

    #[test]
    fn odd_models_are_no_trouble() {
        let nothing = ModelWeight { language_bytes: 0, vision_bytes: 0, layers: 0, cell_bytes: 0 };
        assert_eq!(plan(&nothing, 0, GIB), Plan::asked(-1));
        let huge = ModelWeight { language_bytes: u64::MAX / 4, ..MODEL };
        assert_eq!(plan(&huge, 1 << 20, 80 * GIB).layers, 0);
    }
}
