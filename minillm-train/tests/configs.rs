//! Every file in `configs/` is loaded and run for two steps.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Bench, root};

#[test]
fn every_config_takes_two_steps() {
    let bench = Bench::new();
    let documents = (0..60).map(|i| format!("Story {i}. Once upon a time {i} foxes met.\n<|endoftext|>\n"));
    bench.write("stories.txt", &documents.collect::<String>().repeat(20));
    let mut count = 0;
    let entries = fs_err::read_dir(root().join("configs")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    let goes_on = |path: &Path| path.is_file() && fs_err::read_to_string(path).unwrap().contains("from =");
    paths.sort_by_key(|path| goes_on(path)); // last: they go on from one of the others
    for path in paths {
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let config = path.to_str().unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = fs_err::read_to_string(&path).unwrap();
        // Small enough for a test: two steps of two short sequences, one block of the width and vocabulary that the file asks for.
        let mut arguments = vec!["train", config, "--out", name, "--set", "train.max_steps=2"];
        for change in [
            "schedule.warmup_steps=0",
            "train.batch_size=2",
            "train.micro_batch_size=1",
            "eval.graded=4",
            // Conversations do not fit into less.
            if text.contains("tales-chat") { "train.context=512" } else { "train.context=32" },
            "data.validation_fraction=0.1",
        ] {
            arguments.extend(["--set", change]);
        }
        if text.contains("from =") {
            arguments.extend(["--set", "model.from=quickstart"]);
            if text.contains("tales-chat") {
                arguments.extend(["--set", "model.max_position_embeddings=512"]);
            }
        } else {
            arguments.extend(["--set", "model.num_hidden_layers=1", "--set", "model.max_position_embeddings=32"]);
        }
        if text.contains("kind = \"file\"") {
            arguments.extend(["--set", "tokenizer.kind=char"]);
        }
        if !text.contains("tales") {
            arguments.extend(["--set", "data.files=[\"stories.txt\"]"]);
        }
        bench.run(&arguments);
        assert!(bench.path().join(name).join("checkpoint-000002/model.safetensors").exists());
        count += 1;
    }
    assert_eq!(count, 11);
}
