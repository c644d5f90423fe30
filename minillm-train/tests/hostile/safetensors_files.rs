//! Weights, and the list of weights in several files.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Loader::{Index, Safetensors};
use super::{Case, case, cut, edit, fixed, nested};

fn with_header(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

/// The sound file with another header.
fn header(change: impl Fn(&mut Value) + 'static) -> impl Fn(&[u8]) -> Vec<u8> {
    move |sound| {
        let end = 8 + u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&sound[8..end]).unwrap();
        change(&mut header);
        [&with_header(&header.to_string(), 0), &sound[end..]].concat()
    }
}

/// The sound file with another value in the header entry of a parameter.
fn entry(pointer: &'static str, value: Value) -> impl Fn(&[u8]) -> Vec<u8> {
    header(move |header| *header["model.norm.weight"].pointer_mut(pointer).unwrap() = value.clone())
}

pub(super) fn lengths() -> Vec<Case> {
    let claims = |bytes: u64| move |sound: &[u8]| [&bytes.to_le_bytes(), &sound[8..]].concat();
    vec![
        case(Safetensors, "empty", "it has 0 bytes", fixed([])),
        case(Safetensors, "seven-bytes", "it has 7 bytes", fixed([2, 0, 0, 0, 0, 0, 0])),
        case(Safetensors, "no-header", "EOF while parsing", fixed([0; 8])),
        case(Safetensors, "header-of-2-to-64", "header claims 18446744073709551615 bytes", claims(u64::MAX)),
        case(Safetensors, "header-to-the-last-address", "header claims 9223372036854775807", claims(i64::MAX as u64)),
        case(Safetensors, "header-longer-than-the-file", "its header claims 900000 bytes", claims(900_000)),
        case(Safetensors, "header-over-the-limit", "its header claims 100000001", fixed(100_000_001_u64.to_le_bytes()))
            .of_length(200_000_000),
        case(Safetensors, "header-of-100-mb-of-nothing", "expected value", fixed(100_000_000_u64.to_le_bytes()))
            .of_length(100_000_008),
        case(Safetensors, "header-of-100-mb-in-a-name", "its header has a text of 99000000 bytes", |_| {
            with_header(&format!("{{\"{}\":{{", "a".repeat(99_000_000)), 0)
        }),
        case(Safetensors, "header-of-100-mb-in-a-field", "its header has a text of 99000000 bytes", |_| {
            with_header(&format!("{{\"a\":{{\"{}\":1}}}}", "a".repeat(99_000_000)), 0)
        }),
        case(Safetensors, "header-of-100-mb-in-a-dtype", "its header has a text of 99000000 bytes", |_| {
            let dtype = "F".repeat(99_000_000);
            with_header(&format!("{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":[],\"data_offsets\":[0,0]}}}}"), 0)
        }),
        case(Safetensors, "header-of-100-mb-of-dimensions", "more than 8 dimensions", |_| {
            with_header(&format!("{{\"a\":{{\"shape\":[{}1]}}}}", "1,".repeat(49_000_000)), 0)
        }),
        case(Safetensors, "header-of-100-mb-of-metadata", "its tensors have 0 bytes, and 1", |_| {
            with_header(&format!("{{\"__metadata__\":[{}1]}}", "1,".repeat(49_000_000)), 1)
        }),
        case(Safetensors, "cut-in-the-header", "its header claims", cut(1, 10)),
        case(Safetensors, "cut-in-the-data", "its tensors have", cut(9, 10)),
        case(Safetensors, "longer-than-its-tensors", "its tensors have", |sound| [sound, &[0; 4]].concat()),
    ]
}

pub(super) fn headers() -> Vec<Case> {
    let one = |entry: &str| fixed(with_header(&format!("{{\"a\":{entry}}}"), 8));
    let offsets = |offsets: Value| entry("/data_offsets", offsets);
    let tensors = |count: usize| {
        let mut header = "{".to_owned();
        for index in 0..count {
            write!(header, "\"{index}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}},").unwrap();
        }
        header.pop();
        fixed(with_header(&(header + "}"), 0))
    };
    vec![
        case(Safetensors, "not-utf8", "invalid unicode", fixed(b"\x04\0\0\0\0\0\0\0{\"\xff\"")),
        case(Safetensors, "not-json", "expected value", fixed(with_header("GGUF", 0))),
        case(Safetensors, "an-array", "expected an object", fixed(with_header("[]", 0))),
        case(Safetensors, "nested-in-a-shape", "`a`", one(&format!("{{\"shape\":{}}}", nested(10_000)))),
        case(Safetensors, "nested-in-an-entry", "`a`", one(&nested(10_000))),
        case(Safetensors, "a-gap", "which does not follow", offsets(json!([4, 20]))),
        case(Safetensors, "an-overlap", "`data_offsets` of", offsets(json!([0, 16]))),
        case(Safetensors, "backwards", "`data_offsets` of", offsets(json!([16, 0]))),
        case(Safetensors, "offsets-at-2-to-64", "[18446744073709551615, 18446744073709551615]", {
            offsets(json!([u64::MAX, u64::MAX]))
        }),
        case(Safetensors, "span-of-2-to-64", "has 18446744073709551615 bytes", {
            one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}"#)
        }),
        case(Safetensors, "negative-offset", "invalid value: integer `-4`", offsets(json!([-4, 12]))),
        case(Safetensors, "fractional-offset", "floating point `0.5`", offsets(json!([0.5, 12]))),
        case(Safetensors, "three-offsets", "`model.norm.weight`: ", offsets(json!([0, 1, 2]))),
        case(Safetensors, "shape-over-2-to-64", "`shape` of `model.norm.weight`", {
            entry("/shape", json!([1_u64 << 63, 4, 1_u64 << 62]))
        }),
        case(Safetensors, "shape-over-its-span", "is [5] in F32, but it has 16 bytes", entry("/shape", json!([5]))),
        case(Safetensors, "no-numbers-in-a-span", "is [0] in F32, but it has 16 bytes", entry("/shape", json!([0]))),
        case(Safetensors, "nine-dimensions", "more than 8 dimensions", entry("/shape", json!(vec![1; 9]))),
        case(Safetensors, "negative-dimension", "integer `-4`", entry("/shape", json!([-4]))),
        case(Safetensors, "unknown-dtype", "`dtype` of `model.norm.weight` is `F33`", entry("/dtype", json!("F33"))),
        case(Safetensors, "narrower-dtype", "is [4] in BF16, but it has 16 bytes", entry("/dtype", json!("BF16"))),
        case(Safetensors, "dtype-as-number", "invalid type: integer `32`", entry("/dtype", json!(32))),
        case(Safetensors, "entry-without-shape", "missing field `shape`", {
            one(r#"{"dtype":"U8","data_offsets":[0,8]}"#)
        }),
        case(Safetensors, "two-shapes", "duplicate field `shape`", {
            one(r#"{"dtype":"U8","shape":[8],"shape":[9],"data_offsets":[0,8]}"#)
        }),
        case(Safetensors, "same-name-twice", "it holds `a` twice", {
            let half = |from: usize| {
                format!("\"a\":{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[{from},{}]}}", from + 4)
            };
            fixed(with_header(&format!("{{{},{}}}", half(0), half(4)), 8))
        }),
        case(Safetensors, "name-of-2-kb", "a tensor's name has 2048 bytes", {
            fixed(with_header(&format!("{{\"{}\":{{}}}}", "a".repeat(2048)), 0))
        }),
        case(Safetensors, "too-many-tensors", "more than 65536 tensors", tensors(65_537)),
        case(Safetensors, "only-empty-tensors", "`num_hidden_layers` is 2", fixed(with_header("{}", 0))),
    ]
}

pub(super) fn models() -> Vec<Case> {
    let rename = |from: &'static str, to: &'static str| {
        header(move |header| {
            let entry = header.as_object_mut().unwrap().remove(from).unwrap();
            header[to] = entry;
        })
    };
    vec![
        case(Safetensors, "wrong-dtype", "`model.norm.weight` is I32, which is not supported", {
            entry("/dtype", json!("I32"))
        }),
        case(Safetensors, "double", "is [4] in F64, but it has 16 bytes", entry("/dtype", json!("F64"))),
        case(Safetensors, "two-names-of-one", "model.safetensors", {
            rename("model.norm.weight", "module.model.layers.1.mlp.up_proj.weight")
        }),
        case(Safetensors, "pointer", "is a Git LFS pointer", {
            fixed("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
        }),
        case(Safetensors, "pickle", "is a pickle", fixed(b"PK\x03\x04\0\0\x08\x08")),
        case(Safetensors, "wrong-rank", "model.norm.weight: file [2, 2], model [4]", entry("/shape", json!([2, 2]))),
        case(Safetensors, "swapped-dimensions", "model.embed_tokens.weight: file [4, 12]", {
            header(|header| header["model.embed_tokens.weight"]["shape"] = json!([4, 12]))
        }),
        case(Safetensors, "missing-tensor", "missing: `model.norm.weight`", rename("model.norm.weight", "norm")),
        case(Safetensors, "tensor-of-another-block", "not part of the model: `model.layers.2.mlp.up_proj.weight`", {
            rename("model.layers.1.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight")
        }),
        case(Safetensors, "block-4-billion", "not part of the model", {
            rename("model.layers.1.mlp.up_proj.weight", "model.layers.4294967296.mlp.up_proj.weight")
        }),
    ]
}

pub(super) fn indexes() -> Vec<Case> {
    let to = |shard: &'static str| edit(move |index| index["weight_map"]["model.norm.weight"] = json!(shard));
    let no_file = "which is not a file of this directory";
    vec![
        case(Index, "empty", "is no index: EOF", fixed([])),
        case(Index, "nested", "`a`: invalid type: sequence", {
            fixed(format!("{{\"weight_map\":{{\"a\":{}}}}}", nested(10_000)))
        }),
        case(Index, "not-utf8", "is not UTF-8", fixed(b"{\"weight_map\":{\"\xff\":\"a\"}}")),
        case(Index, "no-weight-map", "missing field `weight_map`", fixed("{}")),
        case(Index, "empty-weight-map", "`weight_map` is empty", fixed(r#"{"weight_map":{}}"#)),
        case(Index, "shard-as-number", "`a`: invalid type", fixed(r#"{"weight_map":{"a":1}}"#)),
        case(Index, "same-name-twice", "`weight_map` holds `a` twice", {
            fixed(r#"{"weight_map":{"a":"model.safetensors","a":"model.safetensors"}}"#)
        }),
        case(Index, "shard-in-the-parent", no_file, to("../model/model.safetensors")),
        case(Index, "shard-at-the-root", no_file, to("/dev/zero")),
        case(Index, "shard-is-the-directory", no_file, to(".")),
        case(Index, "shard-on-a-drive", no_file, to("C:model.safetensors")),
        case(Index, "shard-without-a-name", no_file, to("")),
        case(Index, "missing-shard", "nowhere.safetensors", to("nowhere.safetensors")),
        case(Index, "shard-that-is-none", "config.json", to("config.json")),
        case(Index, "tensor-in-another-shard", "`model.norm.weight` is not in `model-00001-of-", {
            to("model-00001-of-00004.safetensors")
        }),
        case(Index, "tensor-nowhere", "`surplus` is not in", {
            edit(|index| index["weight_map"]["surplus"] = json!("model-00001-of-00004.safetensors"))
        }),
        case(Index, "tensor-left-out", "`weight_map` leaves `", {
            // One whose shard has others too.
            edit(|index| {
                let map = index["weight_map"].as_object_mut().unwrap();
                let shares = |name: &&String| map.values().filter(|shard| **shard == map[*name]).count() > 1;
                let name = map.keys().find(shares).unwrap().clone();
                map.remove(&name);
            })
        }),
        case(Index, "over-16-mb", "is larger than", fixed([])).of_length(1 << 30),
    ]
}
