//! Documents that repeat what the code says must say the same.

use adjutant::ingress::ProblemCode;

/// The table of `docs/errors.md`, as the code has it.
fn error_table() -> String {
    let rows = ProblemCode::ALL
        .iter()
        .map(|code| format!("| `{}` | {} | {} |\n", code.as_str(), code.status(), code.meaning()));
    format!("| code | status | when |\n|---|---|---|\n{}", rows.collect::<String>())
}

#[test]
fn every_error_code_stands_in_the_documents() {
    let document = include_str!("../../docs/errors.md");
    let table = error_table();
    assert!(document.contains(&table), "docs/errors.md must hold this table:\n{table}");
}

#[test]
fn the_configuration_reference_is_the_default_file() {
    let reference = include_str!("../../docs/configuration.md");
    let defaults = include_str!("../../workers/src/config/default.toml");
    assert!(
        reference.contains(&format!("```toml\n{defaults}```\n")),
        "docs/configuration.md must hold workers/src/config/default.toml word for word"
    );
}
