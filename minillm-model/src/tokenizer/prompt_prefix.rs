//! What a `post_processor` puts before a text.

use serde_json::Value;

/// The ids before the text: `<s>` in `[<s>, text, </s>]`. What comes behind it is left out, as a prompt is continued.
pub(super) fn prompt_prefix(processor: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match processor["type"].as_str() {
        // Each works on what the one before it has made, so the last stands outermost.
        Some("Sequence") => {
            processor["processors"].as_array().into_iter().flatten().rev().flat_map(prompt_prefix).collect()
        }
        Some("TemplateProcessing") => {
            let pieces = processor["single"].as_array().into_iter().flatten();
            let names = pieces.map_while(|piece| piece["SpecialToken"]["id"].as_str());
            let ids = names.filter_map(|name| processor["special_tokens"][name]["ids"].as_array()).flatten();
            ids.filter_map(id).collect()
        }
        Some("BertProcessing" | "RobertaProcessing") => id(&processor["cls"][1]).into_iter().collect(),
        _ => Vec::new(),
    }
}
