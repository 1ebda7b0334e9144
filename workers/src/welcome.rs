//! The first lines of a service that runs embedded: where it is, what to try, where to go from here.

use std::{net::SocketAddr, path::Path};

/// For people; in the words that the README uses, too.
pub(crate) fn embedded(directory: &Path, api: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "\
The bank runs embedded: every role in this process, data in {directory}, nothing else needed.
The HTTP API: http://{api}

Try:
  curl -s -H 'Prefer: wait=5' http://{api}/v1/commands --json '{open}'
  curl -s -H 'Prefer: wait=5' http://{api}/v1/commands --json '{deposit}'
  curl -s http://{api}/v1/views/balances/acc-1

For more than one process: set ADJUTANT_DATABASE_URL (PostgreSQL) and ADJUTANT_AMQP_URL (RabbitMQ);
`bank move --from {directory} --to postgres://…` carries this data over.
",
        open = r#"{"type":"account.open","stream":"account/acc-1","payload":{"owner":"Ada"}}"#,
        deposit = r#"{"type":"account.deposit","stream":"account/acc-1","payload":{"amount":100}}"#,
    )
}
