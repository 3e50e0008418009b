//! How wide a text is at most, and texts that fit.
//!
//! Which font a viewer has is not known here. The widths are those of DejaVu Sans, the widest of those
//! that stand for `sans-serif`, rounded up: in any narrower one a text ends earlier.

/// Weight and size of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Font {
    /// In pixels.
    pub(super) size: i32,
    pub(super) bold: bool,
}

/// An ordinary text of this size.
pub(super) const fn plain(size: i32) -> Font {
    Font { size, bold: false }
}

/// A bold text of this size.
pub(super) const fn bold(size: i32) -> Font {
    Font { size, bold: true }
}

impl Font {
    /// The most pixels that a text takes.
    pub(super) fn width(self, text: &str) -> i32 {
        let thousandths = text
            .chars()
            .fold(0_i32, |sum, c| sum.saturating_add(self.advance(c)));
        thousandths.saturating_mul(self.size) / 1000 + 1
    }

    /// The text, shortened to so many pixels; the whole of it if something had to go.
    pub(super) fn fit(self, text: &str, room: i32) -> (String, Option<String>) {
        let whole = harmless(text);
        if self.width(&whole) <= room {
            return (whole, None);
        }
        let mut kept = String::new();
        for c in whole.chars() {
            kept.push(c);
            if self.width(&kept) + self.width("…") > room {
                kept.pop();
                break;
            }
        }
        let mut kept = kept.trim_end().to_owned();
        kept.push('…');
        (kept, Some(whole))
    }

    /// Thousandths of the size that a character takes.
    fn advance(self, c: char) -> i32 {
        let plain = match c {
            'i' | 'j' | 'l' | '\'' => 280,
            ' ' | '.' | ',' | '·' => 320,
            '/' | ':' | ';' | '|' | 'I' | '-' => 365,
            'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '!' | '"' => 420,
            'a'..='h' | 'k' | 'n'..='q' | 's' | 'u' | 'v' | 'x'..='z' | '0'..='9' => 640,
            '_' | '–' | '?' | '*' => 540,
            'w' => 820,
            'm' => 980,
            'A'..='H' | 'J'..='L' | 'N'..='P' | 'R'..='V' | 'X'..='Z' => 775,
            'Q' | 'M' => 870,
            'W' => 990,
            ' '..='~' | '…' | '→' | '×' => 1000,
            // Other scripts come from other fonts.
            _ => 1250,
        };
        // Bold letters of DejaVu Sans are wider by a ninth at the most, narrow ones by more.
        if self.bold {
            plain * 112 / 100 + 30
        } else {
            plain
        }
    }
}

/// Without what a picture cannot hold, or what would let a name look like another: control
/// characters, marks that turn the direction of text, those that cannot be seen.
pub(super) fn harmless(text: &str) -> String {
    let allowed = |c: char| match c {
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{61c}'
        | '\u{ad}'
        | '\u{feff}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{fffe}'
        | '\u{ffff}' => '?',
        c if c.is_control() => '?',
        c => c,
    };
    text.chars().map(allowed).collect()
}
