//! `ask`: one look at picture files, or many from JSON lines. Only answers go to standard output.
//! Not here: what a look is made of (`crate::ask`), loading the model (`wiring`).

use crate::ask::{Asker, Defaults, Question, batch, unwritable};
use crate::config::{AskArguments, Config, ProcessEnvironment};
use crate::error::{Error, Result};
use crate::telemetry;
use crate::wiring::model;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

pub(super) fn ask(mut arguments: AskArguments) -> Result<ExitCode> {
    let batch = arguments.batch.take();
    let question = Question {
        frames: std::mem::take(&mut arguments.frames),
        last_answers: std::mem::take(&mut arguments.last_answers),
        ..Question::default()
    };
    let config = Config::for_asking(arguments, &ProcessEnvironment)?;
    telemetry::start(&config.log)?;
    // Opened before the model is loaded, so that a wrong name is told at once.
    let lines = batch.as_deref().map(open).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::internal("runtime", format!("the runtime can't start: {e}")))?;
    let engine = runtime.block_on(async {
        let engine = model::open(&config.model).await?;
        engine.ready().await?;
        Ok::<_, Error>(engine)
    })?;
    let chosen = config.commentary;
    let defaults = Defaults {
        profile: chosen.profile,
        instruction: chosen.instruction,
        max_tokens: chosen.max_tokens,
        sampling: chosen.sampling.or(engine.sampling).complete(),
    };
    let mut asker = Asker::new(Arc::clone(&engine.door), defaults);
    let mut output = io::stdout().lock();
    let done = match lines {
        Some((mut lines, folder)) => batch::run(&mut asker, &mut lines, &folder, &mut output),
        None => say(&mut asker, &question, &mut output),
    };
    drop(asker);
    runtime.block_on(engine.stop());
    done.map(|()| ExitCode::SUCCESS)
}

/// The lines of a batch, and the folder that its paths start from.
fn open(batch: &Path) -> Result<(Box<dyn BufRead>, PathBuf)> {
    if batch == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), PathBuf::new()));
    }
    let file = File::open(batch).map_err(|e| {
        Error::not_found("batch_file", format!("{}: {e}", batch.display())).hint("name a file of JSON lines, or -")
    })?;
    let folder = batch.parent().map(Path::to_owned).unwrap_or_default();
    Ok((Box::new(BufReader::new(file)), folder))
}

/// Prints the answer as it is written.
fn say(asker: &mut Asker, question: &Question, output: &mut dyn Write) -> Result<()> {
    asker.ask(question, &mut |piece| {
        output.write_all(piece.as_bytes()).and_then(|()| output.flush()).map_err(unwritable)
    })?;
    writeln!(output).map_err(unwritable)
}
