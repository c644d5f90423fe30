//! `{% generation %}` .. `{% endgeneration %}`, transformers' addition to Jinja: what the model says. minijinja does not know the tag, so it is
//! rewritten to a filter block, whose filter puts a mark on either side. Only at the places where the lexer sees a tag: in texts,
//! comments and raw blocks the words stay as they are.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

/// The filter's name in the rewritten template.
pub const FILTER: &str = "what_the_model_says";

/// The template with the tags rewritten, and whether it has any.
pub fn rewrite(source: &str, syntax: SyntaxConfig) -> (String, bool) {
    let mut rewritten = String::with_capacity(source.len());
    let mut copied = 0;
    let mut follows_block_start = false;
    for (token, span) in tokenize(source, false, syntax).map_while(Result::ok) {
        let replacement = match token {
            Token::Ident("generation") if follows_block_start => format!("filter {FILTER}"),
            Token::Ident("endgeneration") if follows_block_start => "endfilter".to_owned(),
            _ => {
                follows_block_start = matches!(token, Token::BlockStart);
                continue;
            }
        };
        rewritten.push_str(&source[copied..span.start_offset as usize]);
        rewritten.push_str(&replacement);
        copied = span.end_offset as usize;
        follows_block_start = false;
    }
    rewritten.push_str(&source[copied..]); // also where the lexer stopped: the parser says why
    (rewritten, copied > 0)
}
