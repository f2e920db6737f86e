//! What was measured: kept in `benches/results.json`, and drawn for the book.

use std::ffi::OsStr;
use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::{Value, json};

const RESULTS: &str = "benches/results.json";
/// Of a drawing, in pixels: its width, where bars begin and how long the longest is, the height of a line.
const WIDTH: f64 = 720.0;
const LEFT: f64 = 150.0;
const LONGEST: f64 = 440.0;
const LINE: f64 = 22.0;
/// The room above a group, for its name.
const HEAD: f64 = 30.0;

/// What was measured of one who took part, in milliseconds.
#[derive(Debug, Clone)]
pub struct Figure {
    pub who: String,
    pub fastest: f64,
    pub median: f64,
    pub ninth_decile: f64,
}

impl Figure {
    /// Of the times of all rounds.
    pub fn of(who: &str, times: &mut [f64]) -> Self {
        times.sort_by(f64::total_cmp);
        let part = |tenths: usize| times[(times.len() - 1) * tenths / 10];
        Self {
            who: who.to_owned(),
            fastest: part(0),
            median: part(5),
            ninth_decile: part(9),
        }
    }
}

/// What was to be done, and the figures of all; condo's are the first.
#[derive(Debug, Clone)]
pub struct Work {
    pub name: String,
    pub figures: Vec<Figure>,
}

impl Work {
    fn ratio(&self, figure: &Figure) -> f64 {
        figure.median / self.figures[0].median
    }
}

/// Prints a table, takes the results of a subject into the file, and draws them. `about` says of what and how they are.
pub fn keep(subject: &str, title: &str, about: Value, works: &[Work]) -> Result<()> {
    for work in works {
        println!("{}", work.name);
        for figure in &work.figures {
            println!(
                "  {:<16} {:>7.2} ms fastest {:>7.2} ms median {:>7.2} ms 90 %   {:.2}",
                figure.who,
                figure.fastest,
                figure.median,
                figure.ninth_decile,
                work.ratio(figure)
            );
        }
    }
    let mut results: Value = match std::fs::read(RESULTS) {
        Ok(text) => serde_json::from_slice(&text).context(RESULTS)?,
        Err(_) => json!({}),
    };
    results[subject] = about;
    results[subject]["works"] = works.iter().map(as_json).collect();
    std::fs::write(RESULTS, serde_json::to_string_pretty(&results)? + "\n").context(RESULTS)?;
    let picture = format!("docs/src/speed-{subject}.svg");
    std::fs::write(&picture, drawn(title, works)?).context(picture)
}

fn as_json(work: &Work) -> Value {
    let figures = work.figures.iter().map(|figure| {
        json!({
            "name": figure.who, "fastest_ms": rounded(figure.fastest), "median_ms": rounded(figure.median),
            "ninth_decile_ms": rounded(figure.ninth_decile), "median_to_condo": rounded(work.ratio(figure)),
        })
    });
    json!({ "work": work.name, "figures": figures.collect::<Vec<_>>() })
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// A bar for each median, and a line from the fastest round to the ninth decile.
fn drawn(title: &str, works: &[Work]) -> Result<String> {
    let lines: usize = works.iter().map(|work| work.figures.len()).sum();
    let height = HEAD * (works.len() + 1) as f64 + LINE * lines as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" role=\"img\" \
         aria-labelledby=\"title\" font-family=\"sans-serif\" font-size=\"14\">\n  <title id=\"title\">{title}</title>\n  \
         <style>\n    .page {{ fill: #ffffff }} .own {{ fill: #1565c0 }} .other {{ fill: #b0bec5 }} text {{ fill: #263238 }}\n    \
         .who {{ text-anchor: end }} .work {{ font-weight: bold }} path {{ stroke: #37474f; stroke-width: 1.5 }}\n  </style>\n  \
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    let mut top = HEAD / 2.0;
    for work in works {
        writeln!(
            svg,
            "  <text class=\"work\" x=\"10\" y=\"{:.0}\">{}, milliseconds</text>",
            top + 15.0,
            work.name
        )?;
        top += HEAD;
        // One that waits for seconds in some rounds shall not make all others invisible.
        let most = work
            .figures
            .iter()
            .map(|f| f.ninth_decile.min(f.median * 1.5))
            .fold(0.0, f64::max);
        for (at, figure) in work.figures.iter().enumerate() {
            bar(&mut svg, top, LONGEST / most, (at == 0, figure))?;
            top += LINE;
        }
    }
    Ok(svg + "</svg>\n")
}

fn bar(svg: &mut String, top: f64, scale: f64, (is_own, figure): (bool, &Figure)) -> Result<()> {
    let class = if is_own { "own" } else { "other" };
    let [fastest, median, ninth] = [
        figure.fastest,
        figure.median,
        figure.ninth_decile.min(figure.median * 1.5),
    ]
    .map(|milliseconds| milliseconds * scale);
    let (middle, text) = (top + LINE / 2.0, top + LINE / 2.0 + 5.0);
    writeln!(
        svg,
        "  <text class=\"who\" x=\"{:.0}\" y=\"{text:.0}\">{}</text>\n  \
         <rect class=\"{class}\" x=\"{LEFT}\" y=\"{:.0}\" width=\"{median:.1}\" height=\"{:.0}\"/>\n  \
         <path d=\"M{:.1} {middle:.0}H{:.1}\"/>\n  \
         <text x=\"{:.0}\" y=\"{text:.0}\">{:.1}</text>",
        LEFT - 10.0,
        figure.who,
        top + 3.0,
        LINE - 6.0,
        LEFT + fastest,
        LEFT + ninth,
        LEFT + ninth.max(median) + 10.0,
        figure.median
    )?;
    Ok(())
}

/// Takes in what a script has measured of a subject: lines of a work (`_` for a space), a name and times; of `version`, a name and its text; and
/// of `memory`, a system, a name and megabytes.
pub fn take_in(subject: &str, title: &str, file: &OsStr) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let (mut works, mut versions, mut memory, mut rounds) = (Vec::<Work>::new(), json!({}), json!({}), 0);
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(work), Some(who), Some(rest)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if work == "version" {
            versions[who] = rest.into();
            continue;
        }
        if let ("memory", Some((peer, megabytes))) = (work, rest.split_once(' ')) {
            println!("{who}: one of {peer} takes {megabytes} MB");
            memory[who][peer] = megabytes.parse::<f64>()?.into();
            continue;
        }
        let work = work.replace('_', " ");
        let mut times = rest.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        rounds = times.len();
        let figure = Figure::of(who, &mut times);
        match works.iter_mut().find(|known| known.name == work) {
            Some(known) => known.figures.push(figure),
            None => works.push(Work {
                name: work,
                figures: vec![figure],
            }),
        }
    }
    let mut about = json!({ "machine": super::machine()?, "rounds": rounds, "versions": versions });
    if memory != json!({}) {
        about["megabytes_of_one"] = memory;
    }
    keep(subject, title, about, &works)
}
