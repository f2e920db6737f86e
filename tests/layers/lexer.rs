//! Rust text into words and signs: comments, strings and characters are dropped, so that nothing in them is taken for code.

/// A word (identifier, keyword, number) or one sign, and the line it is on, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Cuts `source` into tokens.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        chars: source.chars().collect(),
        at: 0,
        line: 1,
    };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn bump(&mut self) {
        if self.peek(0) == Some('\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    fn bump_by(&mut self, count: usize) {
        (0..count).for_each(|_| self.bump());
    }

    fn next(&mut self) -> Option<Token> {
        loop {
            let c = self.peek(0)?;
            match (c, self.peek(1)) {
                ('/', Some('/')) => self.line_comment(),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('\'', _) if self.is_character() => self.character(),
                _ if c.is_whitespace() => self.bump(),
                _ if c.is_alphanumeric() || c == '_' => {
                    if !self.raw_or_byte_string() {
                        return Some(self.word());
                    }
                }
                _ => {
                    let token = Token {
                        text: c.to_string(),
                        line: self.line,
                    };
                    self.bump();
                    return Some(token);
                }
            }
        }
    }

    fn word(&mut self) -> Token {
        let line = self.line;
        let mut text = String::new();
        while let Some(c) = self.peek(0).filter(|c| c.is_alphanumeric() || *c == '_') {
            text.push(c);
            self.bump();
        }
        Token { text, line }
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.bump();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => (depth += 1, self.bump_by(2)).1,
                (Some('*'), Some('/')) => (depth -= 1, self.bump_by(2)).1,
                (Some(_), _) => self.bump(),
                (None, _) => return,
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.bump();
        while let Some(c) = self.peek(0) {
            self.bump_by(if c == '\\' { 2 } else { 1 });
            if c == '"' {
                return;
            }
        }
    }

    /// A character, not a lifetime.
    fn is_character(&self) -> bool {
        self.peek(1) == Some('\\') || self.peek(2) == Some('\'')
    }

    fn character(&mut self) {
        self.bump();
        while let Some(c) = self.peek(0) {
            self.bump_by(if c == '\\' { 2 } else { 1 });
            if c == '\'' {
                return;
            }
        }
    }

    /// Skips `b"…"`, `c"…"`, `b'…'`, `r"…"`, `br#"…"#` and the like; whether there was one.
    fn raw_or_byte_string(&mut self) -> bool {
        let mut prefix = 0;
        while prefix < 2 && matches!(self.peek(prefix), Some('b' | 'c' | 'r')) {
            prefix += 1;
        }
        let raw = prefix > 0 && self.peek(prefix - 1) == Some('r');
        let mut hashes = 0;
        while raw && self.peek(prefix + hashes) == Some('#') {
            hashes += 1;
        }
        match self.peek(prefix + hashes) {
            Some('"') if raw => self.raw_string(prefix, hashes),
            Some('"') if prefix == 1 => (self.bump(), self.string()).1,
            Some('\'') if prefix == 1 && self.peek(0) == Some('b') => (self.bump(), self.character()).1,
            _ => return false,
        }
        true
    }

    fn raw_string(&mut self, prefix: usize, hashes: usize) {
        self.bump_by(prefix + hashes + 1);
        while let Some(c) = self.peek(0) {
            self.bump();
            if c == '"' && (0..hashes).all(|i| self.peek(i) == Some('#')) {
                return self.bump_by(hashes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|t| t.text).collect()
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(
            words(r##"a("b\"c", b"d", r#"e"f"#, br"g", c"h", 'i', b'\'', '\\') z"##).join(""),
            "a(,,,,,,,)z"
        );
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(words("&'a T r#type"), ["&", "'", "a", "T", "r", "#", "type"]);
        assert_eq!(words("r b br"), ["r", "b", "br"]);
    }

    #[test]
    fn lines_are_counted_through_what_is_dropped() {
        let found = tokens("\"x\ny\"\n/* \n */ a");
        assert_eq!(
            found,
            [Token {
                text: "a".into(),
                line: 4
            }]
        );
    }
}
