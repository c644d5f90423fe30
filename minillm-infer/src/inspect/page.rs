//! One file about one model on one text.
//!
//! What stands still (tables, curves, explanations) is HTML from here. What moves is drawn by `page.js` from the numbers, which
//! lie in the page as JSON. A prompt and a vocabulary may hold anything: in HTML they are escaped, in JSON `<` is, and the
//! script puts them into the page as text.

use std::collections::BTreeMap;
use std::f64::consts::{LN_2, TAU};
use std::fmt::Write as _;

use minillm_model::config::{ModelConfig, Position};
use minillm_model::layers::rope_table::frequencies;
use serde::Serialize;

use super::internals::{Internals, Prediction};
use super::summary::Summary;
use crate::describe;
use crate::html::chart::{LineChart, Point, Scale, Series};
use crate::html::{Page, escape, table};
use crate::number::count;

/// Weights of attention are in the page as whole numbers of this fraction: a hundredth of a per cent.
const WEIGHT_STEPS: f32 = 10_000.0;
/// Pairs of a head that are drawn as dials.
const MOST_DIALS: usize = 16;
/// Points of a curve.
const CURVE_POINTS: usize = 200;

/// What the script draws from.
#[derive(Serialize)]
struct Data<'a> {
    ids: &'a [u32],
    labels: &'a BTreeMap<u32, String>,
    vocabulary: usize,
    /// Query heads to a key/value head.
    group: usize,
    windows: Vec<Option<usize>>,
    /// `[L][H][T][1..=T]` in steps of 1 / [`WEIGHT_STEPS`].
    attention: Vec<Vec<Vec<Vec<u16>>>>,
    /// `[L + 1][T]`
    lens: Vec<Vec<Row>>,
    /// `[L + 1][T]`
    norms: Vec<Vec<f64>>,
    rope: Option<Rope>,
}

/// A [`Prediction`] in few characters.
#[derive(Serialize)]
struct Row {
    /// Ids and probabilities.
    top: Vec<(u32, f64)>,
    /// Probability and rank of the token that follows.
    next: Option<(f64, usize)>,
}

impl Row {
    fn new(prediction: &Prediction) -> Self {
        Self {
            top: prediction.top.iter().map(|choice| (choice.id, short(choice.probability))).collect(),
            next: prediction.next.map(|next| (short(next.probability), next.rank)),
        }
    }
}

#[derive(Serialize)]
struct Rope {
    /// Radians per token, of every pair.
    frequencies: Vec<f64>,
    /// Positions that the model can look at.
    context: usize,
}

/// The page's text. `left_out` tokens of the prompt are not in `internals`.
pub fn page(name: &str, summary: &Summary, internals: &Internals, left_out: usize) -> String {
    let config = &summary.config;
    let t = internals.ids.len();
    let rope = (config.position == Position::Rope)
        .then(|| Rope { frequencies: frequencies(config, t), context: summary.context });
    let mut body = head(name, summary, t, left_out);
    body += &text_section(summary, internals);
    body += &attention_section(config);
    body += &lens_section();
    body += &norms_section(internals);
    if let Some(rope) = &rope {
        body += &rope_section(config, rope, t);
    }
    body += &parts_section(summary);
    body += &cache_section(summary);
    body += &data(&Data {
        ids: &internals.ids,
        labels: &internals.labels,
        vocabulary: config.vocab_size,
        group: config.num_attention_heads / config.num_key_value_heads,
        windows: (0..config.num_hidden_layers).map(|index| config.window(index)).collect(),
        attention: internals.attention.iter().map(|heads| heads.iter().map(|rows| steps(rows)).collect()).collect(),
        lens: internals.logit_lens.iter().map(|row| row.iter().map(Row::new).collect()).collect(),
        norms: internals.norms.iter().map(|row| row.iter().map(|&norm| short(norm.into())).collect()).collect(),
        rope,
    });
    let title = format!("{name} from the inside");
    Page { title, body, script: include_str!("page.js"), style: include_str!("page.css") }.render()
}

/// Rounded to four digits that count.
fn short(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

fn steps(rows: &[Vec<f32>]) -> Vec<Vec<u16>> {
    rows.iter().map(|row| row.iter().map(|weight| (weight * WEIGHT_STEPS).round() as u16).collect()).collect()
}

/// The numbers, as JSON in which nothing can end the script element.
fn data(data: &Data) -> String {
    // Only strings hold these characters.
    let json = serde_json::to_string(data).unwrap_or_else(|_| unreachable!("numbers and strings are JSON"));
    let json = json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    format!("<script type=\"application/json\" id=\"data\">{json}</script>\n")
}

fn head(name: &str, summary: &Summary, t: usize, left_out: usize) -> String {
    let config = &summary.config;
    let (h, k) = (config.num_attention_heads, config.num_key_value_heads);
    let norm = describe::norm(config);
    let position = match config.position {
        Position::Learned => "learned positions",
        Position::Rope => "rotary positions",
        Position::None => "no positions",
    };
    let mut html = format!(
        "<h1>{}</h1>\n<p class=\"soft\">{} parameters · {}, {} wide · {} over {} ({}) · {norm} · {position} · {} in the \
         vocabulary</p>\n",
        escape(name),
        count(summary.parameters),
        counted(config.num_hidden_layers, "block"),
        config.hidden_size,
        counted(h, "query head"),
        counted(k, "key/value head"),
        kind(h, k),
        counted(config.vocab_size, "token"),
    );
    let tokens = counted(t, "token");
    let _ = write!(html, "<p>What this model computes on a text of {tokens}. Point at a token, or tap it, ");
    html += "to choose it on the whole page; a click holds it, another lets it go, and the arrow keys step.</p>\n";
    if left_out > 0 {
        let all = t + left_out;
        let _ = writeln!(html, "<p class=\"notice\">The text has {all} tokens. Shown are the first {t}.</p>");
    }
    html
}

fn counted(number: usize, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

fn kind(h: usize, k: usize) -> &'static str {
    if k == h {
        "MHA"
    } else if k == 1 {
        "MQA"
    } else {
        "GQA"
    }
}

fn text_section(summary: &Summary, internals: &Internals) -> String {
    let blind = (summary.config.vocab_size as f64).log2();
    let mean = internals.nats_per_token().map_or_else(String::new, |nats| {
        let among = nats.exp();
        let among = if among < 100.0 { format!("{among:.1}") } else { count(among.round() as usize) };
        format!(
            " On average {nats:.3} nats ({:.2} bits) a token: as unsure as among {among} equally likely ones (perplexity).",
            nats / LN_2
        )
    });
    format!(
        "<h2>Each token's probability</h2>\n<p>Before it read a token, the model gave every token of its vocabulary a \
         probability. The colour is −log<sub>2</sub> of the probability that this token had: 0 bits for a \
         token that was certain, {blind:.1} bits if all were equally likely.{mean}</p>\n\
         <div class=\"legend\"><span>0 bits</span><i class=\"ramp warm\"></i><span>{blind:.1} bits or more</span></div>\n\
         <div id=\"text-strip\" class=\"strip\" tabindex=\"0\" role=\"listbox\" aria-label=\"The text\"></div>\n\
         <div id=\"text-panel\" class=\"panel\" aria-live=\"polite\"></div>\n"
    )
}

fn attention_section(config: &ModelConfig) -> String {
    let (h, k) = (config.num_attention_heads, config.num_key_value_heads);
    let shared = match (h / k, k) {
        (1, _) => String::new(),
        (_, 1) => format!(" All {h} query heads look through the keys and values of one head (MQA)."),
        (g, _) => format!(" Every {g} neighbouring query heads look through the keys and values of one head (GQA)."),
    };
    let window = match config.sliding_window {
        Some(window) if config.max_window_layers == 0 => {
            format!(" A token sees {window} tokens, itself included (sliding window).")
        }
        Some(window) if config.max_window_layers < config.num_hidden_layers => {
            let first = config.max_window_layers + 1;
            format!(" From block {first} on a token sees {window} tokens, itself included (sliding window).")
        }
        _ => String::new(),
    };
    format!(
        "<h2>Attention</h2>\n<p>In every head each token (the query) spreads a weight of 1 over itself and the tokens before it \
         (the keys), softmax(q·k / √E), and fetches their values in that proportion.{shared}{window} The weights say where a \
         head looked; what it made of it they do not say.</p>\n\
         <div id=\"heads\" class=\"heads\"></div>\n\
         <div class=\"choose\"><label>block <select id=\"layer\"></select></label> \
         <label>head <select id=\"head\"></select></label> <span id=\"head-note\" class=\"soft\"></span></div>\n\
         <div class=\"split\">\n<div><h3>The whole map</h3>\n\
         <div class=\"map\" id=\"map\"><canvas></canvas><i class=\"mark\"></i></div>\n\
         <p class=\"soft small\" id=\"map-note\"></p></div>\n\
         <div><h3 id=\"looks-title\"></h3>\n\
         <div id=\"attention-strip\" class=\"strip\" tabindex=\"0\" role=\"listbox\" aria-label=\"The text\"></div>\n\
         <div id=\"attention-panel\" class=\"panel\" aria-live=\"polite\"></div></div>\n</div>\n\
         <p class=\"soft small\">Queries are rows, from top to bottom; keys are columns. The colour follows the square root of \
         the weight, so that small ones are seen; numbers are rounded to 0.01 %.</p>\n"
    )
}

fn lens_section() -> String {
    "<h2>Logit lens</h2>\n<p>What the model would predict if it ended at this depth: its final norm and output matrix, put \
     behind any block (nostalgebraist 2020). Each column is a token, each cell the likeliest token to follow it; the top row is \
     what the model really predicts. Lower rows are read through an output matrix that was trained for the top one: a hint \
     at what is known there, no proof.</p>\n\
     <div class=\"legend\"><span>0 %</span><i class=\"ramp\"></i><span>100 %</span> \
     <span class=\"hit-sample\">underlined: what really follows</span></div>\n\
     <div class=\"scroll\"><table id=\"lens\" class=\"lens\"></table></div>\n\
     <div id=\"lens-panel\" class=\"panel\" aria-live=\"polite\"></div>\n"
        .to_owned()
}

fn norms_section(internals: &Internals) -> String {
    let of = |pick: &dyn Fn(&[f32]) -> Option<f32>| -> Vec<Point> {
        let values = internals.norms.iter().map(|row| pick(row)).enumerate();
        values.filter_map(|(depth, norm)| Some(Point::at(depth as f64, norm?.into()))).collect()
    };
    let mut series = vec![Series { name: "first token".to_owned(), points: of(&|row| row.first().copied()) }];
    if internals.ids.len() > 1 {
        series.push(Series { name: "median of the others".to_owned(), points: of(&|row| median(&row[1..])) });
    }
    let chart = LineChart {
        title: "Norm after each block".to_owned(),
        x_label: "blocks passed (0: the embedding)".to_owned(),
        y_label: "norm".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        series,
    };
    format!(
        "<h2>The residual stream</h2>\n<p>Each token is a vector that every block adds to; here is its length, ‖x‖, at each \
         depth. Sub-layers do not see the length, as a norm stands before each of them; but the longer a vector is, the less \
         an addition of a given size turns it.</p>\n\
         <div class=\"split\">\n<div><div class=\"depths\"><div id=\"norm-names\" class=\"names\"></div>\
         <div class=\"map wide\" id=\"norms\"><canvas></canvas><i class=\"mark\"></i></div></div>\n\
         <p class=\"small\" id=\"norm-note\" aria-live=\"polite\"></p>\n\
         <div class=\"legend\"><span id=\"norm-low\"></span><i class=\"ramp full\"></i><span id=\"norm-high\"></span> \
         <span>(logarithmic)</span></div></div>\n<div>{}</div>\n</div>\n",
        chart.svg()
    )
}

fn median(values: &[f32]) -> Option<f32> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f32::total_cmp);
    values.get(values.len() / 2).copied()
}

fn rope_section(config: &ModelConfig, rope: &Rope, t: usize) -> String {
    let last = rope.context - 1;
    let pairs = rope.frequencies.len();
    let shown = pairs.min(MOST_DIALS);
    let mut dials = String::new();
    for index in 0..shown {
        let pair = if shown > 1 { index * (pairs - 1) / (shown - 1) } else { 0 };
        let turn = TAU / rope.frequencies[pair];
        let turn = if turn < 100.0 { format!("{turn:.1}") } else { count(turn.round() as usize) };
        let _ = writeln!(
            dials,
            "<figure class=\"dial\" data-pair=\"{pair}\"><svg viewBox=\"-1.15 -1.15 2.3 2.3\" aria-hidden=\"true\">\
             <circle r=\"1\"/><path class=\"arc\"/><line class=\"key\" x2=\".8\"/><line class=\"query\" x2=\"1\"/></svg>\
             <figcaption>pair {pair}<br><span class=\"soft\">{turn} tokens/turn</span><br><b></b></figcaption></figure>"
        );
    }
    let which = if shown < pairs { format!(" Drawn are {shown} of {pairs} pairs.") } else { String::new() };
    let scaled = config.rope_scaling.map_or_else(String::new, |scaling| {
        let size = scaling.attention_factor();
        let longer = if (size - 1.0).abs() > 1e-9 {
            format!(", and queries and keys {size:.3} times as long")
        } else {
            String::new()
        };
        format!(" Scaling for long contexts is included: these are the frequencies in a text of {t} tokens{longer}.")
    });
    let chart = LineChart {
        title: "Score of equal vectors, by their distance".to_owned(),
        x_label: "distance between query and key, tokens".to_owned(),
        y_label: "mean over the pairs of cos(distance × frequency); 1 at distance 0".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        series: vec![Series { name: "q = k".to_owned(), points: agreement(rope) }],
    };
    format!(
        "<h2>Rotary positions (RoPE)</h2>\n<p>The {e} values of a query or key are {pairs} pairs, each a hand of a clock. At \
         position p, pair i is turned by p × frequency<sub>i</sub>: early pairs fast, late ones slowly. A score q·k knows of the \
         positions only how much further the query is turned than the key, distance × frequency: move the key, and both hands \
         turn while every angle stays. Here both point to the right before they are turned.{which}{scaled}</p>\n\
         <div class=\"sliders\">\
         <label>key at position <output id=\"key-out\">0</output><input id=\"key\" type=\"range\" min=\"0\" max=\"{last}\" value=\"0\"></label>\
         <label>query <output id=\"distance-out\">0</output> tokens later\
         <input id=\"distance\" type=\"range\" min=\"0\" max=\"{last}\" value=\"{distance}\"></label></div>\n\
         <p class=\"legend\"><i class=\"swatch key\"></i> key <i class=\"swatch query\"></i> query</p>\n\
         <div class=\"dials\">{dials}</div>\n\
         <div class=\"split\">\n<div><h3>cos of the angle, by position and pair</h3>\n\
         <div class=\"map wide\" id=\"angles\"><canvas></canvas><i class=\"mark key\"></i><i class=\"mark\"></i></div>\n\
         <p class=\"small\" id=\"angle-note\"></p></div>\n<div>{}</div>\n</div>\n",
        chart.svg(),
        e = config.head_dim,
        distance = last.min(4),
    )
}

/// The score of a query and a key that are equal and have equal pairs, by their distance, relative to distance 0.
fn agreement(rope: &Rope) -> Vec<Point> {
    let step = rope.context.div_ceil(CURVE_POINTS);
    let mean = |distance: usize| {
        let cosines = rope.frequencies.iter().map(|frequency| (distance as f64 * frequency).cos());
        cosines.sum::<f64>() / rope.frequencies.len() as f64
    };
    (0..rope.context).step_by(step).map(|distance| Point::at(distance as f64, mean(distance))).collect()
}

fn parts_section(summary: &Summary) -> String {
    let row = |name: String, parameters: usize, flops: usize, bytes: usize| {
        let share = |part: usize, whole: usize| format!("{:.1} %", 100.0 * part as f64 / whole as f64);
        vec![
            name,
            count(parameters),
            share(parameters, summary.parameters),
            count(flops),
            share(flops, summary.flops_per_token),
            count(bytes),
        ]
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for part in &summary.parts {
        let count =
            if part.count > 1 { format!(" <span class=\"soft\">× {}</span>", part.count) } else { String::new() };
        rows.push(row(format!("{}{count}", part.name), part.parameters, part.flops_per_token, part.bytes));
    }
    let total = row("total".to_owned(), summary.parameters, summary.flops_per_token, summary.bytes);
    rows.push(total.into_iter().map(|cell| format!("<b>{cell}</b>")).collect());
    let tied = if summary.config.tie_word_embeddings {
        " The output matrix is the embedding matrix once more: work, but no parameters of its own."
    } else {
        ""
    };
    format!(
        "<h2>The parts</h2>\n<p>FLOPs are of the forward pass, for one token with {} tokens in view: 2 for each \
         multiply-and-add of a matrix product. Attention's scores have no parameters, and they alone grow with the number of \
         tokens.{tied} Bytes are of the parameters in f32.</p>\n<div class=\"parts\">{}</div>",
        count(summary.context),
        table(&["part", "parameters", "share", "FLOPs per token", "share", "bytes"], &rows)
    )
}

fn cache_section(summary: &Summary) -> String {
    let config = &summary.config;
    let (h, l, e) = (config.num_attention_heads, config.num_hidden_layers, config.head_dim);
    let label = |k: usize, is_this: bool| {
        let this = if is_this { ", this model" } else { "" };
        format!("K = {k} ({}{this})", kind(h, k))
    };
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let series = summary.kv_cache.iter().map(|cache| Series {
        name: label(cache.num_key_value_heads, cache.is_this_model),
        points: [0, summary.context].map(|t| Point::at(t as f64, mib(t * cache.bytes_per_token))).to_vec(),
    });
    let chart = LineChart {
        title: "K/V cache".to_owned(),
        x_label: "tokens".to_owned(),
        y_label: "MiB".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        series: series.collect(),
    };
    let rows = summary.kv_cache.iter().map(|cache| {
        let label = label(cache.num_key_value_heads, cache.is_this_model);
        let name = if cache.is_this_model { format!("<b>{label}</b>") } else { label };
        let all = count(cache.bytes_per_token * summary.context);
        vec![name, count(cache.bytes_per_token), all]
    });
    let full = format!("bytes at {} tokens", count(summary.context));
    let header = ["key/value heads", "bytes per token", &full];
    format!(
        "<h2>The K/V cache</h2>\n<p>To write the next token, the model needs the keys and values of all tokens before it, and \
         keeps them: 2 · L · K · E numbers a token, here 2 · {l} · K · {e}, of four bytes. Fewer key/value heads for the same {h} \
         query heads make it smaller in proportion.</p>\n\
         <div class=\"split\">\n<div>{}</div>\n<div class=\"parts\">{}</div>\n</div>\n",
        chart.svg(),
        table(&header, &rows.collect::<Vec<_>>())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_digits_are_kept() {
        for (number, kept) in [(0.123_456, 0.1235), (1.0, 1.0), (0.000_012_344_9, 0.000_012_34), (98_768.0, 98_770.0)] {
            assert!((short(number) - kept).abs() < 1e-9 * kept, "{number}");
        }
        assert_eq!(steps(&[vec![1.0], vec![0.333_33, 0.666_67]]), [vec![10_000], vec![3333, 6667]]);
    }

    #[test]
    fn the_agreement_of_equal_vectors_is_complete_at_distance_zero() {
        let rope = Rope { frequencies: vec![1.0, 0.01], context: 1_000 };
        let points = agreement(&rope);
        assert_eq!((points.len(), points[0]), (200, Point::at(0.0, 1.0)));
        let at = points[1].x; // 5 tokens
        assert!((points[1].y - f64::midpoint(at.cos(), (0.01 * at).cos())).abs() < 1e-12);
    }
}
