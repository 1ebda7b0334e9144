//! The tokens file: a token a line, as name, SHA-256 in hex, and roles separated by commas.

use crate::{
    config::{Token, TokenRole},
    run::RunError,
};

/// Reads the file. Empty lines and lines that begin with `#` do not count.
pub(crate) fn read(path: &str) -> Result<Vec<Token>, RunError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| RunError::Setting(format!("server.tokens_file `{path}`: {error}")))?;
    text.lines()
        .zip(1..)
        .filter(|(line, _)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|(line, number)| {
            parse(line)
                .map_err(|reason| RunError::Setting(format!("{path}, line {number}: {reason}")))
        })
        .collect()
}

fn parse(line: &str) -> Result<Token, String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [name, sha256, roles] = fields[..] else {
        return Err("write: name, SHA-256 in hex, roles separated by commas".to_owned());
    };
    let roles = roles.split(',').map(role).collect::<Result<_, _>>()?;
    Ok(Token { name: name.to_owned(), sha256: sha256.to_owned(), roles })
}

fn role(word: &str) -> Result<TokenRole, String> {
    match word {
        "submit" => Ok(TokenRole::Submit),
        "read" => Ok(TokenRole::Read),
        "operate" => Ok(TokenRole::Operate),
        other => Err(format!("`{other}` is no role: use submit, read or operate")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_token_and_its_roles() {
        let token = parse("shop  9f86d081  submit,read").expect("a token");
        assert_eq!((token.name.as_str(), token.sha256.as_str()), ("shop", "9f86d081"));
        assert_eq!(token.roles, [TokenRole::Submit, TokenRole::Read]);
        assert!(parse("shop 9f86d081").is_err());
        assert!(parse("shop 9f86d081 admin").expect_err("no role").contains("`admin` is no role"));
    }
}
