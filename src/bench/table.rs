//! The report as a table for people. Not here: printing it (`cli`), the figures.

use super::{LoadFigures, LoopFigures, Report, Spread, Work};
use std::fmt::{self, Display, Formatter};

/// Columns, the first to the left, the others to the right.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(head: &[&str]) -> Self {
        Self(vec![head.iter().map(|s| (*s).to_owned()).collect()])
    }

    fn row(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        self.0.push([name.to_owned()].into_iter().chain(cells).collect());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |i: usize| self.0.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.0 {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[i] - cell.chars().count());
                line += &if i == 0 { format!("  {cell}{pad}") } else { format!("  {pad}{cell}") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn number(x: f64) -> String {
    match x {
        x if x >= 100.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

fn or_dash(x: Option<f64>) -> String {
    x.map_or_else(|| "-".to_owned(), number)
}

fn median(spread: &Option<Spread>) -> Option<f64> {
    spread.as_ref().map(|s| s.p50)
}

fn ratio(a: Option<f64>, b: Option<f64>) -> String {
    match (a, b) {
        (Some(a), Some(b)) if b > 0.0 => format!("{:.2}", a / b),
        _ => "-".to_owned(),
    }
}

fn percentiles(spread: &Option<Spread>) -> String {
    spread.as_ref().map_or_else(|| "-".to_owned(), |s| format!("{}/{}/{}", number(s.p50), number(s.p95), number(s.p99)))
}

fn work(work: &Work) -> [String; 2] {
    [format!("{:.3}", work.bytes / 1e9), format!("{:.3}", work.flop / 1e12)]
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let random = if self.model.random_weights { ", RANDOM WEIGHTS" } else { "" };
        writeln!(f, "vidette {} on {} ({} cores)", self.version, self.device, self.cores)?;
        writeln!(
            f,
            "{}, {}, {:.2} billion weights{random}; loaded in {} s",
            self.model.name,
            self.model.quantisation,
            self.model.parameters as f64 / 1e9,
            or_dash(self.load_s)
        )?;
        self.looks(f)?;
        self.frame_and_loop(f)?;
        if !self.streams.is_empty() {
            let parallel = match (self.parallel, self.device.as_str()) {
                (0, "cpu") => 1,
                (0, _) => self.slots,
                (n, _) => n.min(self.slots),
            };
            writeln!(f, "\nStreams at once, {parallel} answers written at once; p50/p95/p99 in ms")?;
            write!(f, "{}", streams(&self.streams))?;
        }
        self.machine(f)
    }
}

impl Report {
    fn looks(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let looks = &self.looks;
        let count = looks.ours.last_token.map_or(0, |s| s.count);
        writeln!(
            f,
            "\nLooks one after the other: {} frames, prompt {} tokens, answer {}; medians of {count}, ms",
            looks.frames, looks.prompt_tokens, looks.tokens
        )?;
        let mut table = Table::new(&["", "plain", "ours", "plain/ours", "floor", "ours/floor", "GB", "TFLOP"]);
        let theirs = looks.plain.as_ref();
        let mut row = |name: &str, pick: fn(&super::PathFigures) -> Option<f64>, floor: Option<&Work>| {
            let (plain, ours) = (theirs.and_then(pick), pick(&looks.ours));
            let least = floor.and_then(|w| w.floor_ms);
            let cells = [or_dash(plain), or_dash(ours), ratio(plain, ours), or_dash(least), ratio(ours, least)];
            let sizes = floor.map(work).unwrap_or_default();
            table.row(name, cells.into_iter().chain(sizes));
        };
        let floors = &self.floors;
        row("frames encoded", |p| Some(p.encoded), None);
        row("frames to embeddings", |p| median(&p.embeddings), Some(&floors.encode_frame));
        row("prompt and first token", |p| median(&p.prompt), Some(&floors.kept_prompt));
        row("newest frame to first token", |p| median(&p.first_token), Some(&floors.first_token));
        row("each further token", |p| median(&p.token), Some(&floors.token));
        row("newest frame to last token", |p| median(&p.last_token), None);
        row("tokens a second", |p| median(&p.token).map(|ms| 1e3 / ms), None);
        write!(f, "{table}")?;
        if let Some((first, all, of)) = looks.same_answers {
            writeln!(f, "  of {of} looks both began {first} with the same token and wrote {all} the same")?;
        }
        Ok(())
    }

    fn frame_and_loop(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(frame) = &self.looks.frame {
            writeln!(f, "\nOne frame by itself, ms")?;
            let mut table = Table::new(&["", "median", "floor"]);
            table.row("resize (processor)", [or_dash(median(&frame.resize))]);
            table.row("libmtmd's preprocessing (processor)", [or_dash(median(&frame.preprocess))]);
            let floor = or_dash(self.floors.encode_frame.floor_ms);
            table.row("vision tower and projector", [or_dash(median(&frame.tower)), floor]);
            write!(f, "{table}")?;
        }
        let LoopFigures { bare, greedy, sampled } = &self.looks.decode_loop;
        writeln!(f, "\nThe decode loop, ms a token")?;
        let mut table = Table::new(&["", "median", "over llama.cpp's own"]);
        let own = median(bare);
        let over = |x: Option<f64>| or_dash(x.zip(own).map(|(x, own)| x - own));
        table.row("llama.cpp's decode and nothing else", [or_dash(own)]);
        table.row("ours, the likeliest token", [or_dash(median(greedy)), over(median(greedy))]);
        table.row("ours, default sampling", [or_dash(median(sampled)), over(median(sampled))]);
        write!(f, "{table}")
    }

    fn machine(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let m = &self.memory;
        writeln!(f, "\nMemory, MiB")?;
        let mut table = Table::new(&["", "before", "engine loaded", "and plain path", "end", "of"]);
        let resident = [m.resident_before, m.resident_engine].map(Some);
        let cells = [resident[0], resident[1], m.resident_plain, Some(m.resident_end)].map(or_dash);
        table.row("resident", cells);
        let cells = [m.gpu_before, m.gpu_engine, m.gpu_plain, m.gpu_end, m.gpu_total].map(or_dash);
        table.row("GPU, all users", cells);
        write!(f, "{table}")?;
        match (self.idle_w, self.looking_w) {
            (None, None) => writeln!(f, "\nPower: nothing tells (nvidia-smi is not there)"),
            (idle, looking) => writeln!(f, "\nPower: idle {} W, looking {} W", or_dash(idle), or_dash(looking)),
        }
    }
}

fn streams(all: &[LoadFigures]) -> Table {
    let mut table = Table::new(&[
        "streams",
        "looks/s",
        "tokens/s",
        "kept up",
        "to first token",
        "to end of text",
        "new instruction",
        "W",
        "J/look",
    ]);
    for s in all {
        let cold = if s.cold > 0 { format!(" ({} cold)", s.cold) } else { String::new() };
        let late = if s.unanswered > 0 { format!(" ({} too late)", s.unanswered) } else { String::new() };
        table.row(
            &format!("{}{cold}", s.streams),
            [
                number(s.looks_per_s),
                number(s.tokens_per_s),
                format!("{:.0} %", s.kept_up * 100.0),
                percentiles(&s.first_token),
                percentiles(&s.last_token),
                percentiles(&s.instruction) + &late,
                or_dash(s.watts),
                or_dash(s.joules_per_look),
            ],
        );
    }
    table
}
