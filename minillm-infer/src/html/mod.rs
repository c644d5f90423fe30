//! Pages that need nothing but themselves: one file, no network, no fonts or programs from elsewhere; light and dark as
//! the reader's system is, and readable on a telephone.

mod axis;
pub mod chart;

/// What every page looks like. Colours are those of [`chart`], which repeats them so that a figure stands alone.
const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #23272e; --soft: #667080; --line: #e3e6eb; --paper: #ffffff; --tint: #f5f6f8; --accent: #2f6db5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe3e8; --soft: #98a2b0; --line: #343a43; --paper: #16191d; --tint: #1f2329; --accent: #7cb1ee; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 56px; }
h1 { font-size: 28px; line-height: 1.25; font-weight: 650; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; line-height: 1.3; font-weight: 650; margin: 40px 0 10px; }
h3 { font-size: 16px; font-weight: 650; margin: 24px 0 6px; }
p { margin: 0 0 12px; max-width: 72ch; }
a { color: var(--accent); }
.soft { color: var(--soft); }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--tint); border-radius: 6px; padding: 12px 14px; margin: 0 0 12px; overflow-x: auto; }
.scroll { overflow-x: auto; margin: 0 0 16px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1.5px solid var(--line); white-space: nowrap; }
td { border-bottom: 1px solid var(--line); }
th, td { padding: 6px 14px 6px 0; vertical-align: top; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 28px 36px; }
.charts > *, .chart { min-width: 0; }
.chart { display: block; width: 100%; max-width: 640px; height: auto; }
details > summary { cursor: pointer; color: var(--soft); margin: 0 0 10px; }
@media (max-width: 480px) {
  main { padding: 18px 14px 40px; }
  h1 { font-size: 23px; }
  th, td { padding-right: 12px; }
}
";

/// Text as it may stand in HTML and SVG, between tags or in a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// A whole page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Plain text, for the browser's tab.
    pub title: String,
    /// HTML.
    pub body: String,
    /// A program in the page, or nothing.
    pub script: &'static str,
    /// Rules beyond those that all pages share, or nothing.
    pub style: &'static str,
}

impl Page {
    /// The file's text.
    pub fn render(&self) -> String {
        let Self { title, body, script, style } = self;
        let title = escape(title);
        let script = if script.is_empty() { String::new() } else { format!("<script>\n{script}\n</script>\n") };
        // Without an icon of its own, a page from a server makes the browser ask for one.
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n\
             <body>\n<main>\n{body}\n</main>\n{script}</body>\n</html>\n"
        )
    }
}

/// A table whose cells are HTML already. Where the screen is too narrow for it, it scrolls by itself.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let row = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells.map(|cell| format!("<{tag}>{cell}</{tag}>")).collect();
        format!("<tr>{}</tr>\n", cells.concat())
    };
    let head = row("th", &mut header.iter().copied());
    let head = if header.is_empty() { String::new() } else { format!("<thead>\n{head}</thead>\n") };
    let body: Vec<String> = rows.iter().map(|cells| row("td", &mut cells.iter().map(String::as_str))).collect();
    let body = body.concat();
    format!("<div class=\"scroll\"><table>\n{head}<tbody>\n{body}</tbody>\n</table></div>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_taken_for_a_tag() {
        assert_eq!(escape("a < b & \"c\" > 'd'"), "a &lt; b &amp; &quot;c&quot; &gt; &#39;d&#39;");
        assert_eq!(escape("naïve ☺"), "naïve ☺");
    }

    #[test]
    fn a_page_is_whole_and_asks_for_nothing() {
        let page = Page {
            title: "1 < 2".to_owned(),
            body: table(&["a", "b"], &[vec!["1".to_owned(), escape("<x>")]]),
            script: "",
            style: ".mine { color: red; }\n",
        };
        let html = page.render();
        assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
        assert!(html.contains("<title>1 &lt; 2</title>") && html.contains("<td>&lt;x&gt;</td>"));
        assert!(html.contains(".mine") && !html.contains("<script>") && !html.contains("http"));
        let html = Page { script: "let x = 1;", ..page }.render();
        assert!(html.contains("<script>\nlet x = 1;\n</script>"));
    }

    #[test]
    fn a_table_without_a_header_has_none() {
        let html = table(&[], &[vec!["x".to_owned()], vec!["y".to_owned()]]);
        assert!(!html.contains("thead"));
        assert_eq!(html.matches("<tr>").count(), 2);
    }
}
