//! `bench`: makes or takes a model, has it measured, prints the table and writes the figures as JSON.
//! Not here: measuring (`crate::bench`), making models (`models::random`), loading one (`wiring`).

use crate::bench::{self, Before, Limits, Plan};
use crate::config::{BenchArguments, EngineProcess, ModelConfig, RandomChoice, WeightChoice};
use crate::error::{Error, Result};
use crate::models::random::{Preset, Quantisation, RandomModel};
use crate::models::{self, ModelFiles};
use crate::telemetry;
use crate::wiring::model;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Weights of models that are made; another number makes others, and no difference.
const SEED: u64 = 1;
/// Frames, prompt and answer of a look that were planned for beside the frames, in tokens.
const WORDS: u32 = 256;
/// Tokens of a frame.
const FRAME_TOKENS: u32 = 66;

pub(super) fn bench(arguments: BenchArguments) -> Result<ExitCode> {
    telemetry::start(&arguments.log)?;
    let mut folder = Folder::default();
    let files = files(&arguments, &mut folder)?;
    if arguments.write_only {
        println!("{}\n{}", files.language.display(), files.projector.display());
        return Ok(ExitCode::SUCCESS);
    }
    let language = models::inspect_language_model(&files.language)?;
    let projector = models::inspect_projector(&files.projector)?;
    let plan = plan(&arguments);
    let most = most_streams(&arguments);
    let config = ModelConfig {
        path: Some(files.language),
        dir: PathBuf::new(),
        context_tokens: plan.context_tokens,
        slots: plan.slots,
        parallel: plan.parallel,
        threads: arguments.threads,
        gpu_layers: arguments.gpu_layers,
        kv: crate::config::kv_type(&arguments.kv_type)?,
        encode_ahead: crate::config::encode_ahead(&arguments.encode_ahead)?,
        backends: arguments.backends_dir,
        // The engine itself is measured; `cargo bench --bench wall` measures the wall.
        process: EngineProcess::Inside,
        stall_timeout: Duration::from_secs(60),
        // Every stream's window and one more frame.
        embedding_cache_bytes: most * (plan.frames + 1) * language.n_embd as usize * 64 * size_of::<f32>(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Error::internal("runtime", format!("the runtime can't start: {e}")))?;
    model::find_backends(&config);
    let before = Before::look(arguments.visible_gpus.as_deref());
    eprintln!("loading {}", config.path.as_deref().unwrap_or(Path::new("")).display());
    let engine = runtime.block_on(async {
        let engine = model::open(&config).await?;
        engine.ready().await?;
        Ok::<_, Error>(engine)
    })?;
    let door = Arc::clone(&engine.door);
    let mut keep = |report: &bench::Report| {
        match report.streams.last() {
            None => eprintln!("looks one after the other: done"),
            Some(load) => eprintln!("{} streams: {:.1} looks a second", load.streams, load.looks_per_s),
        }
        arguments.json.as_deref().map_or(Ok(()), |path| write_json(report, path))
    };
    let measured = bench::run(&door, (&language, &projector), &plan, before, runtime.handle(), &mut keep);
    drop(door);
    runtime.block_on(engine.stop());
    let report = measured?;
    print!("{report}");
    Ok(verdict(&report, arguments.at_least))
}

/// 1 when a bound was given and the ratio is below it.
fn verdict(report: &bench::Report, at_least: Option<f64>) -> ExitCode {
    let Some(bound) = at_least else { return ExitCode::SUCCESS };
    let ms = |path: &bench::PathFigures| path.first_token.as_ref().map(|s| s.p50);
    match report.looks.plain.as_ref().and_then(ms).zip(ms(&report.looks.ours)) {
        Some((plain, ours)) if plain / ours >= bound => ExitCode::SUCCESS,
        Some((plain, ours)) => {
            eprintln!("error: the first token is {:.2} times as fast as on the plain path, not {bound}", plain / ours);
            ExitCode::FAILURE
        }
        None => {
            eprintln!("error: --at-least needs the plain path");
            ExitCode::FAILURE
        }
    }
}

fn write_json(report: &bench::Report, path: &Path) -> Result<()> {
    let failed = |why: String| Error::unavailable("bench_json", format!("{} can't be written: {why}", path.display()));
    let json = serde_json::to_string_pretty(report).map_err(|e| failed(e.to_string()))?;
    std::fs::write(path, json + "\n").map_err(|e| failed(e.to_string()))
}

fn most_streams(arguments: &BenchArguments) -> usize {
    arguments.streams.iter().copied().max().unwrap_or(1).max(2)
}

fn plan(arguments: &BenchArguments) -> Plan {
    let needed = arguments.frames as u32 * FRAME_TOKENS + arguments.tokens + WORDS;
    Plan {
        frames: arguments.frames,
        looks: arguments.looks,
        tokens: arguments.tokens,
        streams: arguments.streams.iter().copied().filter(|n| *n > 0).collect(),
        period: Duration::from_secs_f64(arguments.period),
        measure: Duration::from_secs_f64(arguments.seconds),
        plain: !arguments.ours_only,
        context_tokens: arguments.context_tokens.unwrap_or(needed.next_multiple_of(256)),
        slots: arguments.slots.unwrap_or(most_streams(arguments) as u32),
        parallel: arguments.parallel,
        threads: arguments.threads,
        gpu_layers: arguments.gpu_layers,
        limits: Limits { bandwidth_gb_s: arguments.bandwidth, tflop_s: arguments.flops },
    }
}

/// The model that was named, or one that is made now.
fn files(arguments: &BenchArguments, folder: &mut Folder) -> Result<ModelFiles> {
    let Some(preset) = arguments.random else {
        return models::find(arguments.model.as_deref().unwrap_or(Path::new("")));
    };
    let preset = match preset {
        RandomChoice::Tiny => Preset::Tiny,
        RandomChoice::MiniCpmO45 => Preset::MiniCpmO45,
    };
    let quantisation = match arguments.quant {
        WeightChoice::F16 => Quantisation::F16,
        WeightChoice::Q8_0 => Quantisation::Q8_0,
        WeightChoice::Q4KM => Quantisation::Q4KM,
    };
    let random = RandomModel::new(preset, quantisation, SEED);
    let place = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => folder.make(arguments.write_only)?,
    };
    eprintln!("{} of random weights into {}", models::inspect::size(random.bytes()), place.display());
    let began = Instant::now();
    let written = random.write(&place)?;
    let seconds = began.elapsed().as_secs_f64();
    if written.bytes > 0 {
        eprintln!("written in {seconds:.1} s, {:.0} MB/s", written.bytes as f64 / 1e6 / seconds);
    }
    models::find(&written.language)
}

/// A temporary folder that goes with the program.
#[derive(Default)]
struct Folder(Option<PathBuf>);

impl Folder {
    fn make(&mut self, keep: bool) -> Result<PathBuf> {
        let path = std::env::temp_dir().join(format!("vidette-bench-{}", std::process::id()));
        // Fails when it is there already: nobody else's folder is used.
        std::fs::create_dir(&path).map_err(|e| {
            Error::unavailable("bench_folder", format!("{} can't be made: {e}", path.display()))
                .hint("name a folder with --dir")
        })?;
        if !keep {
            self.0 = Some(path.clone());
        }
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What can't be removed was told when it was made.
            let _removed = std::fs::remove_dir_all(path);
        }
    }
}
