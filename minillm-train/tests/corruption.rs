//! Whatever bit of a checkpoint flips and wherever a file of it ends too soon: it is noticed and named, and the checkpoint before
//! takes its place.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Bench, files, stderr};
use fs_err as fs;
use minillm_model::checkpoint::manifest::verify_checkpoint;
use minillm_model::error::with_causes;
use minillm_model::random::stream;
use minillm_train::run_dir::{OpenMode, RunDir};
use rand::RngExt;

const FLIPS: usize = 1000;
const TRUNCATIONS: usize = 200;

/// A run with checkpoints after 4 and after 8 steps.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.train("run", &["--set", "checkpoint.every_steps=4", "--set", "train.max_steps=8"]);
    bench
}

#[test]
fn every_flipped_bit_and_every_truncation_is_found() {
    let bench = bench();
    let run = RunDir::open(&bench.path().join("run"), OpenMode::Resume).unwrap();
    let newest = bench.path().join("run/checkpoint-000008");
    let sound: Vec<_> = files(&newest).into_iter().collect();
    assert_eq!(sound.len(), 9, "{:?}", sound.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let mut rng = stream(1, "corruption");
    for trial in 0..FLIPS + TRUNCATIONS {
        // Small files as often as large ones.
        let (name, content) = &sound[trial % sound.len()];
        let (damage, damaged) = if trial < FLIPS {
            let bit = rng.random_range(0..content.len() * 8);
            let mut damaged = content.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            (format!("bit {bit} of {name}"), damaged)
        } else {
            let length = rng.random_range(0..content.len());
            (format!("{name} cut to {length} bytes"), content[..length].to_vec())
        };
        let path = newest.join(name);
        fs::write(&path, damaged).unwrap();
        let error = verify_checkpoint(&newest).expect_err(&damage);
        let text = with_causes(&error);
        // Damage to the list of files may look like damage to a file in it.
        let named = text.contains(name.rsplit('/').next().unwrap()) || name == "trainer/manifest.json";
        assert!(named && error.hint().is_some(), "{damage}: {text}");
        let (step, _) = run.newest_sound().unwrap().unwrap();
        assert_eq!(step, 4, "{damage}");
        fs::write(&path, content).unwrap();
    }
    assert_eq!(run.newest_sound().unwrap().unwrap().0, 8, "repaired");
    println!("{FLIPS} flips and {TRUNCATIONS} truncations over {} files: all found", sound.len());
}

#[test]
fn the_run_says_which_file_and_goes_on_from_the_checkpoint_before() {
    let bench = bench();
    bench.train("straight", &["--set", "checkpoint.every_steps=4", "--set", "train.max_steps=12"]);
    let newest = bench.path().join("run/checkpoint-000008");
    for name in ["model.safetensors", "trainer/optimizer.safetensors", "trainer/state.json", "tokenizer.json"] {
        let path = newest.join(name);
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..content.len() - 1]).unwrap();
        let output = bench.train("run", &["--resume", "--set", "train.max_steps=12"]);
        let text = stderr(&output);
        assert!(text.contains("checkpoint-000008 is skipped") && text.contains(name), "{name}: {text}");
        assert!(bench.state("run", 12) == bench.state("straight", 12), "{name}");
        // As it was before: the checkpoint after 8 steps is a new one, and sound.
        fs::remove_dir_all(bench.path().join("run/checkpoint-000012")).unwrap();
        bench.train("run", &["--overwrite", "--set", "checkpoint.every_steps=4", "--set", "train.max_steps=8"]);
    }
}
