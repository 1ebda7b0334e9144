//! The database, or the broker, is not there when a process starts.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{
    api::Api,
    eventually,
    proxy::Proxy,
    rabbit::{amqp_address, amqp_url_through},
    site::Site,
    traffic::Traffic,
};

/// An address where nobody listens (yet).
fn nowhere() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_absent_at_start_is_waited_for() {
    let site = Site::new().await;
    let address = nowhere();
    let url = site.database.url_through(address);
    let mut bank = site.launch("all").env("ADJUTANT_DATABASE_URL", url).spawn();
    bank.says(|message| message.contains("the database is not there yet").then_some(())).await;

    let _proxy = Proxy::listening_on(address, site.database.server_address()).await;
    bank.serves().await;
    println!("it started {:?} after its launch", bank.started.elapsed());
    let api = Api(bank.api());
    api.open("acc-1").await;
    let deposited = api.deposit("acc-1", 5).await;
    assert_eq!(api.balance_after("acc-1", &deposited).await, 5);
    assert_eq!(bank.stop().await.0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_absent_at_start_stops_nothing_and_is_used_when_it_comes() {
    let site = Site::new().await;
    let address = nowhere();
    let url = amqp_url_through(address);
    let mut bank = site.launch("all").env("ADJUTANT_AMQP_URL", url).start().await;
    bank.says(|message| message.contains("the broker is not there yet").then_some(())).await;
    let api = Api(bank.api());
    let ready = api.get("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.body);

    api.open("acc-1").await;
    let deposited = api.deposit("acc-1", 5).await;
    assert_eq!(api.balance_after("acc-1", &deposited).await, 5);
    let entries = async |source: &str| -> i64 {
        let member = api.members().await.pop().unwrap();
        let groups = member["stats"]["entries"].as_object().unwrap().clone();
        groups.values().filter_map(|group| group[source].as_i64()).sum()
    };
    eventually("the log brought all of it", async || (entries("log").await == 6).then_some(()))
        .await;
    assert_eq!(entries("broker").await, 0);

    let _proxy = Proxy::listening_on(address, amqp_address()).await;
    let accounts = ["acc-2".to_owned(), "acc-3".to_owned()];
    let traffic = Traffic::start(bank.api(), &accounts, 1);
    eventually("the road is used", async || (entries("broker").await > 30).then_some(())).await;
    let sent = traffic.stop().await;
    let mut look = site.look().await;
    look.until_quiet().await;
    sent.assert_order(&mut look).await;
    let (code, verdict) = site.verify(Some(sent.answers())).await;
    assert_eq!((code, &verdict["findings"]), (0, &Value::Object(serde_json::Map::new())));
    assert_eq!(bank.stop().await.0.code(), Some(0));
}
