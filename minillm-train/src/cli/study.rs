//! `minillm-train study`: what a design choice does, over several seeds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use minillm_infer::output::{note, print};
use minillm_model::checkpoint::durable;
use minillm_train::error::{Error, Result};
use minillm_train::interrupt::Interrupt;
use minillm_train::study::design::{Design, Variant};
use minillm_train::study::page;
use minillm_train::study::record::StudyRecord;
use minillm_train::study::result::{Environment, RunResult};
use minillm_train::study::runner::{StudyDir, StudyEnd, run_all};
use minillm_train::study::summary::StudySummary;
use minillm_train::study::tables;
use serde_json::{Value, json};

use super::arguments::DeviceArgs;
use super::cache_dir;

/// Compare variants of a model: every one trained with every seed, and how sure the difference is
///
///   minillm-train study configs/studies/mlp.toml
///   minillm-train study configs/studies/mlp.toml --set optimizer.kind=muon --out studies/mlp-muon
///
/// The same command goes on where an interrupted study stopped. A study may gain variants and seeds; a change of
/// anything else needs another --out.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A study, as in configs/studies/
    study: PathBuf,
    /// The study's directory [default: studies/NAME after the file's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// The longer form that the file's [full] describes
    #[arg(long)]
    full: bool,
    /// Change a key of the base, for every variant; may be given several times
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    set: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let found = args.device.open()?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.study, args.full));
    let old = StudyRecord::read(&out)?;

    // What a step takes is measured once: later starts must come to the same number of steps.
    let mut pace: BTreeMap<String, f64> = BTreeMap::new();
    let mut known = |variant: &Variant| -> Result<f64> {
        let before = old.iter().flat_map(|old| &old.variants).find(|old| old.name == variant.name);
        let seconds = match before.and_then(|before| before.seconds_per_step) {
            Some(seconds) => seconds,
            None => seconds_per_step(variant, &found.name)?,
        };
        pace.insert(variant.name.clone(), seconds);
        Ok(seconds)
    };
    let design = Design::load(&args.study, &args.set, args.full, &cache_dir()?, &mut known)?;
    let record = StudyRecord::new(&design, Environment::here(&found), &pace)?;
    if let Some(old) = &old {
        record.check_continues(old, &out)?;
    }
    let directory = StudyDir::open(&out)?;
    record.write(directory.path())?;

    let runs = design.runs().len();
    let (description, shown) = (&found.description, out.display());
    note(format_args!("{runs} runs on {} ({description}), study in {shown}", found.name));
    let interrupt = Interrupt::install()?;
    match run_all(&design, &directory, &found.name, &interrupt)? {
        StudyEnd::Interrupted(signal, done) => {
            note(format_args!("stopped with {done} of {runs} runs done; the same command goes on from here"));
            Ok(ExitCode::from(signal.exit_code()))
        }
        StudyEnd::Done(results) => {
            let summary = StudySummary::new(&design, &results);
            write_results(directory.path(), &record, &summary, &results)?;
            print(&tables::text(&summary))?;
            note(format_args!("the same and more in {shown}: study.html, results.md, results.csv, results.json"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn default_out(study: &Path, full: bool) -> PathBuf {
    let mut name = study.file_stem().unwrap_or_default().to_owned();
    if full {
        name.push("-full");
    }
    Path::new("studies").join(name)
}

/// Writes everything there is to say about a finished study into its directory.
fn write_results(directory: &Path, record: &StudyRecord, summary: &StudySummary, results: &[RunResult]) -> Result<()> {
    let whole = json!({ "study": record, "summary": summary, "runs": results });
    let mut files = vec![
        ("results.md".to_owned(), tables::markdown(summary)),
        ("results.csv".to_owned(), tables::csv(summary)),
        ("results.json".to_owned(), format!("{whole:#}\n")),
        ("study.html".to_owned(), page::page(record, summary, results).render()),
    ];
    for figure in page::figures(summary, results) {
        files.push((format!("figures/{}.svg", figure.name), figure.svg));
    }
    let write = || -> std::io::Result<()> {
        durable::create_directory(&durable::System, &directory.join("figures"))?;
        files.iter().try_for_each(|(name, text)| {
            durable::replace_file(&durable::System, &directory.join(name), text.as_bytes())
        })
    };
    write().map_err(|source| Error::Io { action: "write", what: "the study's results", source })
}

/// What a step of a variant takes here, by `bench` in a process of its own.
fn seconds_per_step(variant: &Variant, device: &str) -> Result<f64> {
    note(format_args!("measuring a step of {}", variant.name));
    let failed = |source| Error::Io { action: "measure", what: "the speed of a variant", source };
    let folder = tempfile::tempdir().map_err(failed)?;
    let config = folder.path().join("config.toml");
    let model = format!("model.vocab_size={}", variant.model.vocab_size);
    let measure = || -> std::io::Result<Option<f64>> {
        fs_err::write(&config, variant.config.to_toml().map_err(std::io::Error::other)?)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bench").arg(&config).args(["--set", &model, "--device", device, "--steps", "10", "--json"]);
        let output = command.stderr(std::process::Stdio::inherit()).output()?;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Ok(report["ms_per_step"].as_f64().map(|milliseconds| milliseconds / 1e3))
    };
    measure().map_err(failed)?.ok_or_else(|| failed(std::io::Error::other("`minillm-train bench` gave no speed")))
}
