//! The picture with its tables, as one page: what the picture shows is there in words, too.
use std::fmt::Write as _;

use husk_terminal::page::{Block, Cell, Style};

use super::model::Picture;
use super::svg::escape;

const STYLE: &str = include_str!("page.css");

/// The page. It loads nothing, and no script would run in it.
pub(crate) fn page(picture: &Picture, blocks: &[Block]) -> String {
    let mut page = String::new();
    let title = escape(&picture.title);
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<figure>\n{}</figure>\n",
        super::svg(picture)
    );
    let mut headings = 0;
    for block in blocks {
        match block {
            Block::Title { title, note } => {
                headings += 1;
                heading(&mut page, headings, title, note);
            }
            Block::Table(rows) => table(&mut page, headings, rows),
            Block::Sentence { mark, style, text } => {
                let class = class(*style);
                let _ = writeln!(page, "<p{class}>{}{}</p>", escape(mark), escape(text));
            }
            Block::Gap => {}
        }
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn heading(page: &mut String, number: usize, title: &str, note: &str) {
    let level = if number == 1 { 1 } else { 2 };
    let note = match note {
        "" => String::new(),
        note => format!(" <small>{}</small>", escape(note)),
    };
    let title = escape(title);
    let _ = writeln!(
        page,
        "<h{level} id=\"part{number}\">{title}{note}</h{level}>"
    );
}

/// A table under the heading of this number, which names it.
fn table(page: &mut String, heading: usize, rows: &[Vec<Cell>]) {
    let _ = writeln!(
        page,
        "<div class=\"wide\"><table aria-labelledby=\"part{heading}\">"
    );
    let is_head = |row: &[Cell]| {
        let mut cells = row.iter();
        cells.all(|cell| cell.text.is_empty() || cell.style == Style::Title)
    };
    for (index, row) in rows.iter().enumerate() {
        page.push_str("<tr>");
        for cell in row {
            let name = if index == 0 && is_head(row) && !cell.text.is_empty() {
                "th scope=\"col\""
            } else {
                "td"
            };
            let right = if cell.right { " align=\"right\"" } else { "" };
            let end = name.get(..2).unwrap_or(name);
            let (class, text) = (class(cell.style), escape(&cell.text));
            let _ = write!(page, "<{name}{class}{right}>{text}</{end}>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

/// How a text stands out. None of it is in the colour alone.
const fn class(style: Style) -> &'static str {
    match style {
        Style::Plain | Style::Title => "",
        Style::Dim => " class=\"t-dim\"",
        Style::Green => " class=\"t-own\"",
        Style::Cyan => " class=\"t-pod\"",
        Style::Yellow => " class=\"t-node\"",
        Style::Magenta => " class=\"t-some\"",
        Style::Red => " class=\"t-wrong\"",
    }
}
