use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::*;
use crate::error::Error;
use crate::tokenizer::Tokenizer;

/// Values by transformers, where they are present.
fn golden<T: serde::de::DeserializeOwned>(name: &str) -> Option<T> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden-post/chat")).join(name);
    let text = fs_err::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

fn template(source: &str, [bos, eos]: [Option<&str>; 2], control: &[&str]) -> ChatTemplate {
    let text = |token: Option<&str>| token.map(str::to_owned);
    let control = control.iter().map(ToString::to_string).collect();
    ChatTemplate::new(source, TemplateTokens { bos: text(bos), eos: text(eos), control }).unwrap()
}

fn chatml() -> ChatTemplate {
    template(CHATML, [None, Some("<|im_end|>")], &["<|im_start|>", "<|im_end|>"])
}

fn problem<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let Err(Error::Chat { problem, .. }) = result else { panic!("{result:?}") };
    problem
}

/// A map of the file's templates.
type Templates<T> = std::collections::BTreeMap<String, T>;

#[derive(Deserialize)]
struct Source {
    bos_token: Option<String>,
    eos_token: Option<String>,
    template: String,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    messages: minijinja::Value,
    #[serde(default)]
    add_generation_prompt: bool,
    #[serde(default)]
    continue_final_message: bool,
    #[serde(default)]
    variables: minijinja::Value,
    rendered: Option<String>,
    error: Option<String>,
}

impl Case {
    fn conversation(&self) -> Conversation {
        Conversation::from_json(&serde_json::to_string(&self.messages).unwrap()).unwrap()
    }

    fn options(&self) -> RenderOptions {
        let turn = match (self.add_generation_prompt, self.continue_final_message) {
            (true, _) => Turn::Assistant,
            (_, true) => Turn::Continued,
            _ => Turn::Ended,
        };
        let names = self.variables.try_iter().into_iter().flatten();
        let variables = names.map(|name| (name.to_string(), self.variables.get_item(&name).unwrap())).collect();
        RenderOptions { turn, variables, ..RenderOptions::default() }
    }
}

#[test]
fn every_template_renders_as_in_transformers() {
    #[derive(Deserialize)]
    struct File {
        templates: Templates<Source>,
        cases: Vec<Case>,
    }
    let Some(File { templates, cases }) = golden("templates.json") else { return };
    assert!(cases.len() > 60);
    for case in cases {
        let source = &templates[&case.template];
        // With every control token that occurs, so that words that look like one are marked and unmarked again.
        let control = ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "</s>"];
        let tokens = [source.bos_token.as_deref(), source.eos_token.as_deref()];
        let rendered = template(&source.template, tokens, &control).render(&case.conversation(), &case.options());
        let what = format!("{}, {}", case.template, case.conversation);
        match (&case.rendered, &case.error) {
            (Some(expected), None) => assert_eq!(&rendered.unwrap().text(), expected, "{what}"),
            (None, Some(expected)) => assert_eq!(&problem(rendered), expected, "{what}"),
            _ => panic!("{what}: neither a text nor an error"),
        }
    }
}

#[test]
fn masks_are_those_of_transformers() {
    #[derive(Deserialize)]
    struct Masked {
        #[serde(flatten)]
        case: Case,
        text: String,
        ids: Vec<u32>,
        mask: Vec<u8>,
    }
    #[derive(Deserialize)]
    struct File {
        templates: Templates<String>,
        cases: Vec<Masked>,
    }
    let Some(File { templates, cases }) = golden("masks.json") else { return };
    let tokenizer = golden_tokenizer();
    let encoder = ChatEncoder::new(&tokenizer);
    // In these cases of ChatML the model's first character and the one before it, both line breaks, are one token for transformers.
    let borders =
        ["spaces around", "assistant turn that begins with a newline"].map(|case| ("chatml-generation", case));
    let mut differ = Vec::new();
    for Masked { case, text, ids, mask } in &cases {
        let tokens = [Some("<|begin_of_text|>"), Some("<|im_end|>")];
        let rendered = template(&templates[&case.template], tokens, &[]).render(&case.conversation(), &case.options());
        let rendered = rendered.unwrap();
        assert_eq!(&rendered.text(), text);
        let got = encoder.encode(&rendered).unwrap();
        let got_mask: Vec<u8> = got.is_trained.iter().map(|&is_trained| is_trained.into()).collect();
        if (&got.ids, &got_mask) != (ids, mask) {
            differ.push((&*case.template, &*case.conversation));
        }
    }
    assert_eq!(differ, borders);
}

fn golden_tokenizer() -> Tokenizer {
    let json: serde_json::Value = golden("tokenizer.json").unwrap();
    Tokenizer::from_json(&json.to_string()).unwrap()
}

#[test]
fn words_do_not_become_control_tokens() {
    #[derive(Deserialize)]
    struct Sanitized {
        #[serde(flatten)]
        case: Case,
        #[serde(rename = "ids_plain")]
        plain: Vec<u32>,
        #[serde(rename = "ids_sanitized")]
        words: Vec<u32>,
    }
    #[derive(Deserialize)]
    struct File {
        template: String,
        cases: Vec<Sanitized>,
    }
    let Some(File { template: source, cases }) = golden("control_tokens.json") else { return };
    let tokenizer = golden_tokenizer();
    let encoder = ChatEncoder::new(&tokenizer);
    let control: Vec<_> = tokenizer.control_tokens().into_iter().map(|token| token.text).collect();
    let control: Vec<&str> = control.iter().map(String::as_str).collect();
    for Sanitized { case, plain, words } in cases {
        let ids = |control: &[&str]| {
            let rendered =
                template(&source, [None, Some("<|im_end|>")], control).render(&case.conversation(), &case.options());
            encoder.encode(&rendered.unwrap()).unwrap().ids
        };
        assert_eq!(ids(&control), words, "{}", case.conversation);
        assert_eq!(ids(&[]), plain, "{}", case.conversation);
    }
}

#[test]
fn chatml_marks_what_the_assistant_says_and_the_end_of_its_turn() {
    let conversation = Conversation::from_texts([("user", "Who?"), ("assistant", "Max.")]);
    let rendered = chatml().render(&conversation, &RenderOptions::default()).unwrap();
    let parts: Vec<_> = rendered.parts().collect();
    let before = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(parts, [(before, false), ("Max.<|im_end|>", true), ("\n", false)]);

    let asked = Conversation::from_texts([("user", "Who?")]);
    let options = RenderOptions { turn: Turn::Assistant, ..RenderOptions::default() };
    assert_eq!(chatml().render(&asked, &options).unwrap().text(), before);
    let begun = Conversation::from_texts([("user", "Who?"), ("assistant", "M")]);
    let options = RenderOptions { turn: Turn::Continued, ..RenderOptions::default() };
    assert_eq!(chatml().render(&begun, &options).unwrap().text(), format!("{before}M"));
}

#[test]
fn the_tag_is_a_tag_only_where_jinja_has_one() {
    let source = "{# {% generation %} #}{{ '{% generation %}' }}{% raw %}{% generation %}{% endraw %}\
        {%- generation -%} a {%- endgeneration -%} b {% set generation = 1 %}{{ generation }}";
    let template = template(source, [None, None], &[]);
    assert!(template.has_generation_tag());
    let rendered = template.render(&Conversation::from_texts([("user", "")]), &RenderOptions::default()).unwrap();
    let parts: Vec<_> = rendered.parts().collect();
    assert_eq!(parts, [("{% generation %}{% generation %}", false), ("a", true), ("b 1", false)]);
    assert!(!self::template("{{ 'generation' }}", [None, None], &[]).has_generation_tag());
}

#[test]
fn pythons_functions_are_there() {
    let render = |source: &str| {
        let now = jiff::civil::date(2026, 3, 4).at(5, 6, 7, 0);
        let tools: minijinja::Value =
            serde_json::from_str(r#"[{"name": "größe", "b": [1, 2.5, null, true], "a": {}}]"#).unwrap();
        let options = RenderOptions { now, variables: vec![("tools".to_owned(), tools)], ..RenderOptions::default() };
        template(source, [None, None], &[])
            .render(&Conversation::from_texts([("user", " Hi ")]), &options)
            .unwrap()
            .text()
    };
    assert_eq!(
        render("{{ messages[0].content.strip() }}|{{ bos_token is defined }}|{{ messages[::-1] | length }}"),
        "Hi|False|1"
    );
    assert_eq!(render("{{ strftime_now('%d %b %Y') }}"), "04 Mar 2026");
    assert_eq!(render("{{ tools[0] | tojson }}"), r#"{"name": "größe", "b": [1, 2.5, null, true], "a": {}}"#);
    assert_eq!(render("{{ {'x': 'ö<\"', 'y': []} | tojson }}"), r#"{"x": "ö<\"", "y": []}"#);
    assert_eq!(render("{{ {'x': 'ö'} | tojson(ensure_ascii=true) }}"), r#"{"x": "\u00f6"}"#);
    assert_eq!(
        render("{{ {'y': 1, 'x': [2, 3]} | tojson(separators=(',', ':'), sort_keys=true) }}"),
        r#"{"x":[2,3],"y":1}"#
    );
    assert_eq!(render("{{ {'x': [1, {}]} | tojson(indent=2) }}"), "{\n  \"x\": [\n    1,\n    {}\n  ]\n}");
}

#[test]
fn a_hostile_template_is_an_error() {
    let ask = Conversation::from_texts([("user", "Hi")]);
    let failed = |source: &str| {
        let begin = Instant::now();
        let tokens = TemplateTokens::default();
        let result =
            ChatTemplate::new(source, tokens).and_then(|template| template.render(&ask, &RenderOptions::default()));
        let problem = problem(result);
        assert!(begin.elapsed() < Duration::from_secs(20), "{source}"); // against hanging, not for speed
        problem
    };
    for endless in [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='0123456789') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "{{ 'a' * 99999999 }}",
    ] {
        let problem = failed(endless);
        assert!(problem.starts_with("the chat template has taken 1000000 steps"), "{endless}: {problem}");
    }
    // As deep as a template of the greatest length can be.
    let deep = |end: &str| format!("{{{{ 1{}{end} }}}}", "+1".repeat(32_700));
    assert!(failed(&deep("+")).contains("line 1"));
    assert!(failed(&deep("+undefined.x")).contains("line 1"));
    assert!(failed("{{ messages | tojson(indent=9999999999) }}").contains("at most 64"));
    assert!(failed(&"x".repeat(65_537)).contains("at most 65536"));
    assert!(failed("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").contains("recursion limit"));
    assert!(failed("{{ 'a' * 999999999999 }}").starts_with("the chat template"));
    assert!(failed("{% include '/etc/passwd' %}").contains("line 1"));
    assert!(failed("{{ messages.__class__.__mro__ }}").contains("undefined"));
    assert!(failed("\n\n{% if %}").contains("line 3"));
    assert!(failed("{% generation %}").contains("line 1"));
    assert!(failed("{{ messages[0].content + 1 }}").contains("line 1"));
    assert_eq!(failed("{{ raise_exception('Only one system message, please.') }}"), "Only one system message, please.");
}

#[test]
fn wrong_messages_are_named() {
    let failed = |json: &str| problem(Conversation::from_json(json));
    assert!(failed("[").starts_with("the messages are not JSON"));
    assert_eq!(failed("3"), "the messages are not a list");
    assert_eq!(failed("{\"text\": 1}"), "the messages are not a list");
    assert_eq!(failed("[]"), "there are no messages");
    assert_eq!(failed(r#"[{"role": "user", "content": ""}, 5]"#), "message 2 is not an object");
    assert_eq!(failed(r#"[{"content": "a"}]"#), "message 1 has no `role` that is a text");
    let no_text = "message 1 has a `content` that is neither a text nor a list of parts";
    assert_eq!(failed(r#"[{"role": "user", "content": 5}]"#), no_text);
    assert!(Conversation::from_json(r#"{"messages": [{"role": "user", "content": "a"}]}"#).is_ok());
    let null = Conversation::from_json(r#"[{"role": "assistant", "content": null}]"#).unwrap();
    assert!(problem(chatml().render(&null, &RenderOptions::default())).contains("line 5"));
    let options = RenderOptions { turn: Turn::Continued, ..RenderOptions::default() };
    assert!(problem(chatml().render(&null, &options)).contains("no text"));
}

/// A tokenizer as Llama 2's: every text begins with a space that is not in it, so a conversation is encoded whole.
#[test]
fn a_tokenizer_that_adds_a_space_is_given_the_whole() {
    let vocabulary = ["<unk>", "</s>", "\u{2581}", "a", "b", "\u{2581}a", "\n"];
    let vocabulary: serde_json::Map<_, _> =
        vocabulary.into_iter().zip(0..).map(|(token, id)| (token.to_owned(), id.into())).collect();
    let special = |id: u32, content: &str| serde_json::json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false });
    let space = serde_json::json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false });
    let file = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0, "<unk>"), special(1, "</s>")],
        "normalizer": null, "pre_tokenizer": space, "post_processor": null, "decoder": space,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": ["\u{2581} a"], "unk_token": "<unk>" },
    });
    let tokenizer = Tokenizer::from_json(&file.to_string()).unwrap();
    assert!(tokenizer.drops_first_space());
    let source =
        "{% for m in messages %}{{ m.content }}\n{% generation %}a{{ eos_token }}{% endgeneration %}b{% endfor %}";
    let rendered = |text: &str| {
        let conversation = Conversation::from_texts([("user", text)]);
        template(source, [None, Some("</s>")], &["</s>"]).render(&conversation, &RenderOptions::default()).unwrap()
    };
    let encoder = ChatEncoder::new(&tokenizer);
    let tokens = encoder.encode(&rendered("ab a")).unwrap();
    let spelled: Vec<_> = tokens.ids.iter().map(|id| tokenizer.name(*id).unwrap()).collect();
    assert_eq!(spelled, ["\u{2581}a", "b", "\u{2581}a", "\n", "a", "</s>", "b"]);
    assert_eq!(tokens.is_trained, [false, false, false, false, true, true, false]);
    assert!(problem(encoder.encode(&rendered("</s>"))).contains("spells a control token"));
}

#[test]
fn every_kind_of_tokenizer_keeps_words() {
    let characters = "</s>a|endoftx".chars().collect();
    let tokenizer = Tokenizer::char_level(&characters, true).unwrap();
    assert_eq!(tokenizer.encode("a<|endoftext|>").unwrap().len(), 2);
    assert_eq!(tokenizer.for_words().encode("a<|endoftext|>").unwrap().len(), 14);
    let Some(json) = golden::<serde_json::Value>("tokenizer.json") else { return };
    let tokenizer = Tokenizer::from_json(&json.to_string()).unwrap();
    assert_eq!(tokenizer.encode("<|im_end|>").unwrap(), [2]);
    assert_eq!(tokenizer.for_words().decode(&tokenizer.for_words().encode("<|im_end|>").unwrap()), "<|im_end|>");
}

/// A token of one character has no inside to be marked in.
#[test]
fn a_control_token_of_one_character_is_a_word_in_a_message() {
    let vocabulary = serde_json::json!({ "|": 0, "a": 1, "b": 2 });
    let special = serde_json::json!({ "id": 3, "content": "#", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false });
    let bytes = serde_json::json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
    let file = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special], "normalizer": null, "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": "|" },
    });
    let tokenizer = Tokenizer::from_json(&file.to_string()).unwrap();
    let template = template("{{ messages[0].content }}#b", [None, None], &["#"]);
    let rendered = template.render(&Conversation::from_texts([("user", "a#")]), &RenderOptions::default()).unwrap();
    // The word is unknown to this vocabulary, and so not the token 3.
    assert_eq!(ChatEncoder::new(&tokenizer).encode(&rendered).unwrap().ids, [1, 0, 3, 2]);
}

/// A thousand turns are no attack.
#[test]
fn a_long_conversation_is_rendered() {
    let turns =
        (0..1000).map(|turn| (if turn % 2 == 0 { "user" } else { "assistant" }, "Once upon a time there was a fox. "));
    let rendered = chatml().render(&Conversation::from_texts(turns), &RenderOptions::default()).unwrap();
    assert_eq!(rendered.text().matches("<|im_start|>").count(), 1000);
}
