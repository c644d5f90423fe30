//! GGUF: header, keys, tensors, architecture, vocabulary.

use std::collections::BTreeMap;

use minillm_model::checkpoint::gguf::{self, Texts, Value as GgufValue};
use minillm_model::checkpoint::weights::{HostTensor, HostTensors};
use minillm_model::encoding::Encoding;

use super::Loader::Gguf;
use super::{Case, SOUND, case, cut, fixed, nested, patch};

const UINT32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const UINT64: u32 = 10;

fn gguf_text(text: impl AsRef<[u8]>) -> Vec<u8> {
    [&(text.as_ref().len() as u64).to_le_bytes(), text.as_ref()].concat()
}

fn gguf_key(name: impl AsRef<[u8]>, kind: u32, value: &[u8]) -> Vec<u8> {
    [&gguf_text(name), &kind.to_le_bytes()[..], value].concat()
}

fn gguf_list(name: &str, kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    gguf_key(name, ARRAY, &[&kind.to_le_bytes(), &count.to_le_bytes()[..], elements].concat())
}

fn gguf_tensor(name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let sizes: Vec<u8> = dimensions.iter().flat_map(|size| size.to_le_bytes()).collect();
    let count = (dimensions.len() as u32).to_le_bytes();
    [&gguf_text(name), &count[..], &sizes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

/// A file that claims so many tensors and keys.
fn gguf_file(tensors: u64, keys: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    [b"GGUF\x03\0\0\0", &tensors.to_le_bytes()[..], &keys.to_le_bytes(), &parts.concat()].concat()
}

/// A file with these keys, and nothing more.
fn gguf_keys(keys: &[Vec<u8>]) -> impl Fn(&[u8]) -> Vec<u8> + use<> {
    fixed(gguf_file(0, keys.len() as u64, keys))
}

/// A file with these tensors, and room for eight f32 behind them.
fn gguf_tensors_only(tensors: &[Vec<u8>]) -> impl Fn(&[u8]) -> Vec<u8> + use<> {
    let mut file = gguf_file(tensors.len() as u64, 0, tensors);
    file.resize(file.len().next_multiple_of(32) + 32, 0);
    fixed(file)
}

type GgufKeys = BTreeMap<String, GgufValue>;

/// The sound file, taken apart, changed and written again.
fn gguf_edit(change: impl Fn(&mut GgufKeys, &mut HostTensors) + 'static) -> impl Fn(&[u8]) -> Vec<u8> {
    move |sound| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.gguf");
        fs_err::write(&path, sound).unwrap();
        let (keys, tensors) = gguf::read::open(&path).unwrap();
        let mut keys: GgufKeys = keys.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        let mut tensors = tensors.read_all().unwrap();
        change(&mut keys, &mut tensors);
        gguf::write::write(&path, &keys.into_iter().collect(), &tensors, Encoding::F32).unwrap();
        fs_err::read(&path).unwrap()
    }
}

/// The sound file with another value of a key.
fn gguf_set(key: &'static str, value: GgufValue) -> impl Fn(&[u8]) -> Vec<u8> {
    gguf_edit(move |keys, _| drop(keys.insert(key.to_owned(), value.clone())))
}

fn gguf_without(key: &'static str) -> impl Fn(&[u8]) -> Vec<u8> {
    gguf_edit(move |keys, _| drop(keys.remove(key).unwrap()))
}

/// The sound file with this vocabulary and as many rows in its embedding, and without a `tokenizer.json`.
fn gguf_vocabulary(tokens: impl Fn() -> Texts + 'static) -> impl Fn(&[u8]) -> Vec<u8> {
    gguf_edit(move |keys, tensors| {
        let tokens = tokens();
        let count = tokens.len();
        keys.remove("tokenizer.huggingface.json");
        keys.insert("tokenizer.ggml.scores".to_owned(), GgufValue::Floats(vec![0.0; count]));
        keys.insert("tokenizer.ggml.token_type".to_owned(), GgufValue::Ints(vec![1; count]));
        keys.insert("tokenizer.ggml.tokens".to_owned(), GgufValue::Texts(tokens));
        let embedding = HostTensor { shape: vec![count, 4], values: vec![0.0; count * 4] };
        tensors.insert("token_embd.weight".to_owned(), embedding);
    })
}

pub(super) fn headers() -> Vec<Case> {
    let alignment = |kind: u32, value: &[u8]| gguf_keys(&[gguf_key("general.alignment", kind, value)]);
    let list = |kind: u32, count: u64| gguf_keys(&[gguf_list("l", kind, count, &[])]);
    vec![
        case(Gguf, "empty", "ends in the middle of `the magic bytes`", fixed([])),
        case(Gguf, "another-magic", "does not begin with `GGUF`", patch(0, *b"GGML")),
        case(Gguf, "version-1", "is GGUF version 1", patch(4, [1, 0, 0, 0])),
        case(Gguf, "big-endian", "is GGUF version 50331648", patch(4, [0, 0, 0, 3])),
        case(Gguf, "tensors-2-to-64", "claims 18446744073709551615 tensors", patch(8, [255; 8])),
        case(Gguf, "keys-2-to-64", "and 18446744073709551615 keys", patch(16, [255; 8])),
        case(Gguf, "keys-over-the-limit", "65537 keys", patch(16, 65_537_u64.to_le_bytes())),
        case(Gguf, "more-keys-than-there-are", "ends in the middle of", fixed(gguf_file(0, 65_536, &[]))),
        case(Gguf, "more-tensors-than-there-are", "ends in the middle of", fixed(gguf_file(65_536, 0, &[]))),
        case(Gguf, "key-of-2-to-64-bytes", "`a key` claims a text of 18446744073709551615 bytes", {
            patch(24, [255; 8])
        }),
        case(
            Gguf,
            "key-past-the-end",
            "`a key` claims a text of 16000000 bytes",
            patch(24, 16_000_000_u64.to_le_bytes()),
        ),
        case(Gguf, "key-over-the-limit", "claims a text of 16777217 bytes", {
            fixed(gguf_file(0, 1, &[16_777_217_u64.to_le_bytes().to_vec()]))
        })
        .of_length(1 << 30),
        case(Gguf, "key-not-utf8", "`a key` has a text that is not UTF-8", gguf_keys(&[gguf_key(b"\xff", 0, &[0])])),
        case(Gguf, "same-key-twice", "holds the key `k` twice", {
            gguf_keys(&[gguf_key("k", 0, &[1]), gguf_key("k", 0, &[1])])
        }),
        case(Gguf, "unknown-type", "`k` has a value of the unknown type 13", gguf_keys(&[gguf_key("k", 13, &[0; 8])])),
        case(Gguf, "bool-of-2", "`k` is 2, neither true nor false", gguf_keys(&[gguf_key("k", 7, &[2])])),
        case(Gguf, "list-of-2-to-64", "`l` claims a list of 18446744073709551615", list(STRING, u64::MAX)),
        case(Gguf, "list-of-2-to-61-texts", "`l` claims a list of 2305843009213693952", list(STRING, 1 << 61)),
        case(Gguf, "list-past-the-end", "`l` claims a list of 4000000", list(0, 4_000_000)),
        case(Gguf, "list-over-the-limit", "`l` claims a list of 4194305", list(0, 4_194_305)).of_length(1 << 30),
        case(Gguf, "lists-over-the-limit-together", "`m` claims a list of 2097153", {
            gguf_keys(&[gguf_list("l", 0, 2_097_152, &[0; 2_097_152]), gguf_list("m", 0, 2_097_153, &[])])
        })
        .of_length(1 << 30),
        case(Gguf, "list-of-lists", "`l` is a list of lists", list(ARRAY, 1)).of_length(100),
        case(Gguf, "list-of-unknown-type", "`l` has a value of the unknown type 99", list(99, 1)).of_length(100),
        case(Gguf, "list-with-2-to-64", "`l` holds 18446744073709551615", {
            gguf_keys(&[gguf_list("l", UINT64, 1, &[255; 8])])
        }),
        case(Gguf, "list-of-4-million-texts", "`general.architecture` is missing", list(STRING, 4_194_304))
            .of_length(34_000_000),
        case(Gguf, "texts-over-the-limit-together", "`k3` claims a text of 16777216 bytes", |_| {
            let keys = (0..5).map(|i| gguf_key(format!("k{i}"), STRING, &gguf_text(vec![b'a'; 16 << 20])));
            gguf_file(0, 5, &keys.collect::<Vec<_>>())
        }),
        case(Gguf, "alignment-0", "`general.alignment` is", alignment(UINT32, &[0; 4])),
        case(Gguf, "alignment-3", "`general.alignment` is", alignment(UINT32, &[3, 0, 0, 0])),
        case(Gguf, "alignment-131072", "`general.alignment` is", alignment(UINT32, &[0, 0, 2, 0])),
        case(Gguf, "alignment-2-to-63", "`general.alignment` is", alignment(UINT64, &(1_u64 << 63).to_le_bytes())),
        case(Gguf, "alignment-minus-32", "`general.alignment` is", alignment(5, &(-32_i32).to_le_bytes())),
        case(Gguf, "alignment-in-words", "`general.alignment` is", alignment(STRING, &gguf_text("thirty-two"))),
        case(Gguf, "cut-in-the-keys", "claims a text of", cut(1, 20)),
        case(Gguf, "cut-in-a-list", "claims a", cut(2, 5)),
        case(Gguf, "cut-in-the-data", "does not fit in the file", cut(19, 20)),
    ]
}

pub(super) fn tensors() -> Vec<Case> {
    let tensors = gguf_tensors_only;
    let one = |dimensions: &[u64], kind, offset| tensors(&[gguf_tensor("t", dimensions, kind, offset)]);
    let two = |second: u64| tensors(&[gguf_tensor("t", &[8], 0, 0), gguf_tensor("u", &[1], 0, second)]);
    vec![
        case(Gguf, "five-dimensions", "the tensor `t` has 5 dimensions", one(&[1; 5], 0, 0)),
        case(Gguf, "dimensions-2-to-32", "the tensor `t` has 4294967295 dimensions", {
            fixed(gguf_file(1, 0, &[gguf_text("t"), vec![255; 64]]))
        }),
        case(Gguf, "shape-over-2-to-64", "the tensor `t` of", one(&[1 << 32, 1 << 32, 4], 0, 0)),
        case(Gguf, "shape-wraps-to-4", "the tensor `t` of", one(&[(1 << 62) + 1, 4], 0, 0)),
        case(Gguf, "shape-over-the-file", "the tensor `t` of [9] in F32 does not fit", one(&[9], 0, 0)),
        case(Gguf, "part-of-a-block", "the tensor `t` of [2, 16] in Q8_0 does not fit", one(&[16, 2], 8, 0)),
        case(Gguf, "offset-2-to-64", "`t` has the offset 18446744073709551615", one(&[8], 0, u64::MAX)),
        case(Gguf, "offset-over-2-to-64", "`t` has the offset 18446744073709551584", one(&[8], 0, u64::MAX - 31)),
        case(Gguf, "offset-past-the-end", "`t` has the offset 64", one(&[8], 0, 64)),
        case(Gguf, "offset-between-places", "`t` has the offset 4", one(&[1], 0, 4)),
        case(Gguf, "tensors-upon-another", "the tensor `u` overlaps another", two(0)),
        case(Gguf, "same-tensor-twice", "holds the tensor `t` twice", {
            tensors(&[gguf_tensor("t", &[0], 0, 0), gguf_tensor("t", &[8], 0, 0)])
        }),
        case(Gguf, "tensor-name-not-utf8", "is not UTF-8", fixed(gguf_file(1, 0, &[gguf_text(b"\xff"), vec![0; 64]]))),
        case(Gguf, "no-architecture", "`general.architecture` is missing", one(&[8], 0, 0)),
        case(Gguf, "too-many-tensors", "claims 65537 tensors", |_| gguf_file(65_537, 0, &[])),
        case(Gguf, "unknown-format", "of ggml's type 2", |sound: &[u8]| {
            let at = sound.windows(18).position(|bytes| bytes == b"output_norm.weight").unwrap() + 18 + 12;
            patch(at, [2, 0, 0, 0])(sound)
        }),
    ]
}

pub(super) fn architectures() -> Vec<Case> {
    let int = |key, value: i128| gguf_set(key, GgufValue::Int(value));
    let float = |key, value: f64| gguf_set(key, GgufValue::Float(value));
    let text = |key, value: &str| gguf_set(key, GgufValue::Text(value.to_owned()));
    let tensor = |name: &'static str, shape: &'static [usize]| {
        gguf_edit(move |_, tensors| {
            let values = vec![0.0; shape.iter().product()];
            tensors.insert(name.to_owned(), HostTensor { shape: shape.to_vec(), values });
        })
    };
    vec![
        case(Gguf, "unknown-architecture", "`general.architecture` is `rwkv`", text("general.architecture", "rwkv")),
        case(Gguf, "architecture-as-number", "`general.architecture` is not a text", int("general.architecture", 1)),
        case(Gguf, "no-embedding", "has no matrix `token_embd.weight`", {
            gguf_edit(|_, tensors| drop(tensors.remove("token_embd.weight")))
        }),
        case(
            Gguf,
            "embedding-of-one-dimension",
            "has no matrix `token_embd.weight`",
            tensor("token_embd.weight", &[48]),
        ),
        case(Gguf, "embedding-of-no-rows", "`vocab_size` is 0", tensor("token_embd.weight", &[0, 4])),
        case(
            Gguf,
            "embedding-of-other-width",
            "token_embd.weight: file [12, 5]",
            tensor("token_embd.weight", &[12, 5]),
        ),
        case(Gguf, "width-0", "`hidden_size` is 0", int("llama.embedding_length", 0)),
        case(Gguf, "width-4-billion", "`hidden_size` is 4294967295", int("llama.embedding_length", 4_294_967_295)),
        case(
            Gguf,
            "width-in-words",
            "`llama.embedding_length` is not a whole number",
            text("llama.embedding_length", "4"),
        ),
        case(Gguf, "width-missing", "`llama.embedding_length` is missing", gguf_without("llama.embedding_length")),
        case(Gguf, "blocks-4-billion", "`num_hidden_layers` is 4294967295", int("llama.block_count", 4_294_967_295)),
        case(Gguf, "blocks-without-tensors", "`num_hidden_layers` is 4096", int("llama.block_count", 4096)),
        case(Gguf, "one-block-too-many", "missing: `blk.2.", int("llama.block_count", 3)),
        case(Gguf, "no-heads", "`num_attention_heads` is 0", int("llama.attention.head_count", 0)),
        case(
            Gguf,
            "heads-16-million",
            "blk.0.attn_q.weight: file [4, 4], model [33554432, 4]",
            int("llama.attention.head_count", 1 << 24),
        ),
        case(Gguf, "context-4-billion", "`max_position_embeddings` is", int("llama.context_length", 4_294_967_295)),
        case(Gguf, "context-16-million", SOUND, int("llama.context_length", 1 << 24)),
        case(Gguf, "width-of-values", "`llama.attention.value_length` is 3", int("llama.attention.value_length", 3)),
        case(Gguf, "experts", "`llama.expert_count` is set", int("llama.expert_count", 8)),
        case(
            Gguf,
            "experts-many",
            "`llama.expert_used_count` is set",
            int("llama.expert_used_count", i128::from(u32::MAX)),
        ),
        case(Gguf, "scale-nan", "`llama.logit_scale` is set to NaN", float("llama.logit_scale", f64::NAN)),
        case(Gguf, "heads-differ", "`llama.attention.head_count` is not the same for every block", {
            gguf_set("llama.attention.head_count", GgufValue::Ints(vec![2, 4]))
        }),
        case(Gguf, "no-heads-at-all", "`llama.attention.head_count` is not the same for every block", {
            gguf_set("llama.attention.head_count", GgufValue::Ints(vec![]))
        }),
        case(Gguf, "a-part", "`split.count` is 4294967295", int("split.count", i128::from(u32::MAX))),
        case(Gguf, "parts-in-words", "`split.count` is not a whole number", text("split.count", "two")),
        case(Gguf, "epsilon-nan", "`norm_eps` is NaN", float("llama.attention.layer_norm_rms_epsilon", f64::NAN)),
        case(Gguf, "epsilon-negative", "`norm_eps` is -1", float("llama.attention.layer_norm_rms_epsilon", -1.0)),
        case(Gguf, "base-infinite", "`rope_theta` is inf", float("llama.rope.freq_base", f64::INFINITY)),
        case(
            Gguf,
            "scaling-unknown",
            "`llama.rope.scaling.type` is `longrope`",
            text("llama.rope.scaling.type", "longrope"),
        ),
        case(Gguf, "scaling-nan", "`rope_scaling` has a", {
            gguf_edit(|keys, _| {
                keys.insert("llama.rope.scaling.type".to_owned(), GgufValue::Text("linear".to_owned()));
                keys.insert("llama.rope.scaling.factor".to_owned(), GgufValue::Float(f64::NAN));
            })
        }),
        case(
            Gguf,
            "factors-of-another-length",
            "`rope_freqs.weight` is not a list of 1",
            tensor("rope_freqs.weight", &[7]),
        ),
        case(Gguf, "factors-of-no-scaling", "`rope_freqs.weight` are not", tensor("rope_freqs.weight", &[1])),
        case(Gguf, "4096-blocks-of-other-tensors", "missing: `blk.0.", {
            gguf_edit(|keys, tensors| {
                keys.insert("llama.block_count".to_owned(), GgufValue::Int(4096));
                tensors.extend((0..5000).map(|i| (format!("t{i}"), HostTensor { shape: vec![0], values: vec![] })));
                tensors.remove("blk.0.attn_q.weight");
            })
        }),
        case(Gguf, "surplus-tensor", "not part of the model: `extra`", tensor("extra", &[1])),
    ]
}

pub(super) fn vocabularies() -> Vec<Case> {
    const JSON: &str = "tokenizer.huggingface.json";
    const TOKENS: &str = "tokenizer.ggml.tokens";
    const TYPES: &str = "tokenizer.ggml.token_type";
    let text = |key, value: &str| gguf_set(key, GgufValue::Text(value.to_owned()));
    let assembled = |key: &'static str, value: GgufValue| {
        gguf_edit(move |keys, _| {
            keys.remove(JSON);
            keys.insert(key.to_owned(), value.clone());
        })
    };
    let byte_level = |merges: &'static [&'static str]| {
        gguf_edit(move |keys, _| {
            keys.remove(JSON);
            keys.insert("tokenizer.ggml.model".to_owned(), GgufValue::Text("gpt2".to_owned()));
            keys.insert("tokenizer.ggml.pre".to_owned(), GgufValue::Text("qwen2".to_owned()));
            keys.insert("tokenizer.ggml.merges".to_owned(), GgufValue::Texts(merges.iter().collect()));
        })
    };
    vec![
        case(Gguf, "fewer-tokens-than-rows", "`tokenizer.ggml.tokens` has 2 tokens, and", {
            gguf_set(TOKENS, GgufValue::Texts(["a", "b"].into_iter().collect()))
        }),
        case(
            Gguf,
            "tokens-as-numbers",
            "`tokenizer.ggml.tokens` is not a list",
            gguf_set(TOKENS, GgufValue::Ints(vec![1; 12])),
        ),
        case(Gguf, "tokens-missing", "`tokenizer.ggml.tokens` is missing", gguf_without(TOKENS)),
        case(Gguf, "same-token-twice", "`tokenizer.ggml.tokens` holds `` twice", {
            gguf_vocabulary(|| [""; 12].into_iter().collect())
        }),
        case(Gguf, "4-million-empty-tokens", "`tokenizer.ggml.tokens` holds `` twice", {
            gguf_vocabulary(|| std::iter::repeat_n("", 1_390_000).collect())
        }),
        case(Gguf, "other-tokens-than-tokenizer-json", "`tokenizer.huggingface.json` is another vocabulary", {
            gguf_set(TOKENS, GgufValue::Texts(["a"; 12].into_iter().collect()))
        }),
        case(
            Gguf,
            "tokenizer-json-is-none",
            "`tokenizer.huggingface.json` tokenizer: tokenizer.json is not",
            text(JSON, "[]"),
        ),
        case(Gguf, "tokenizer-json-is-nested", "`tokenizer.huggingface.json`", text(JSON, &nested(10_000))),
        case(Gguf, "tokenizer-json-of-16-mb", "`tokenizer.huggingface.json`", move |sound| {
            text(JSON, &format!("[{}0]", "0,".repeat(8_000_000)))(sound)
        }),
        case(
            Gguf,
            "types-too-few",
            "`tokenizer.ggml.token_type` is not as long",
            assembled(TYPES, GgufValue::Ints(vec![1])),
        ),
        case(Gguf, "scores-too-few", "`tokenizer.ggml.scores` does not have", {
            assembled("tokenizer.ggml.scores", GgufValue::Floats(vec![0.0]))
        }),
        case(Gguf, "scores-nan", SOUND, assembled("tokenizer.ggml.scores", GgufValue::Floats(vec![f32::NAN; 12]))),
        case(Gguf, "begin-past-the-vocabulary", "`tokenizer.ggml.bos_token_id` is 4294967295", {
            assembled("tokenizer.ggml.bos_token_id", GgufValue::Int(4_294_967_295))
        }),
        case(
            Gguf,
            "begin-in-words",
            "`tokenizer.ggml.bos_token_id` is not",
            text("tokenizer.ggml.bos_token_id", "<s>"),
        ),
        case(Gguf, "end-past-the-vocabulary", SOUND, {
            gguf_set("tokenizer.ggml.eos_token_id", GgufValue::Int(4_000_000_000))
        }),
        case(Gguf, "unknown-model", SOUND, assembled("tokenizer.ggml.model", GgufValue::Text("bert".to_owned()))),
        case(Gguf, "no-cutter", SOUND, move |sound| {
            let known = byte_level(&["n d"])(sound);
            text("tokenizer.ggml.pre", "new")(&known)
        }),
        case(Gguf, "no-merges", "`tokenizer.ggml.merges` is missing", {
            gguf_edit(|keys, _| {
                keys.remove(JSON);
                keys.insert("tokenizer.ggml.model".to_owned(), GgufValue::Text("gpt2".to_owned()));
                keys.insert("tokenizer.ggml.pre".to_owned(), GgufValue::Text("qwen2".to_owned()));
            })
        }),
        case(Gguf, "merge-makes-no-token", "the merge 0", byte_level(&["a a"])),
        case(Gguf, "other-kind-of-tokenizer", SOUND, byte_level(&["n d"])),
        case(Gguf, "merge-of-one", "the merge 0", byte_level(&["a"])),
        case(Gguf, "token-too-long-to-cut", "`tokenizer.ggml.tokens` has a token that is too long", {
            gguf_vocabulary(|| ["a".repeat(10_000)].into_iter().collect())
        }),
        case(Gguf, "50-mb-of-long-tokens", "`tokenizer.ggml.tokens`", {
            gguf_vocabulary(|| (0..200_000).map(|i| format!("{}{i:06}", "a".repeat(250))).collect())
        }),
        case(Gguf, "4-million-merges", "`tokenizer.ggml.tokens`", {
            let word = |length: usize, bits: usize| format!("{bits:0length$b}");
            let words = move || (1..=17).flat_map(move |length| (0..1 << length).map(move |bits| word(length, bits)));
            gguf_vocabulary(move || words().collect())
        }),
    ]
}
