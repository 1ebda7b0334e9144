//! The server: unknown paths, access, probes, slow clients, panics, stopping.

use std::time::Duration;

use super::*;
use crate::{
    ingress::testing::Script,
    message::OutcomeStatus,
    observe::admin::{self, Observed},
};

#[tokio::test]
async fn unknown_paths_methods_and_undelivered_calls_are_problems() {
    let api = Api::start().await;
    let problem = async |method: &str, target: &str| {
        let answer = api.request(method, target, &[], b"").await;
        let (status, code) = answer.problem();
        (status, code, answer.header("allow").map(str::to_owned))
    };
    assert_eq!(problem("GET", "/").await, (404, "not_found".into(), None));
    assert_eq!(problem("GET", "/v1/none").await, (404, "not_found".into(), None));
    assert_eq!(problem("POST", "/v1/commands/").await.1, "not_found");
    let (status, code, allow) = problem("PUT", "/v1/commands").await;
    assert_eq!((status, code.as_str()), (405, "method_not_allowed"));
    assert!(allow.unwrap().contains("POST"));
    assert_eq!(problem("GET", "/v1/commands/batch").await.0, 405);
    for (method, target) in [
        ("POST", "/v1/commands/types/account.deposit/pause"),
        ("POST", "/v1/projections/balances/rebuild"),
        ("GET", "/v1/sagas"),
        ("GET", "/v1/sagas/transfer/7"),
    ] {
        assert_eq!(problem(method, target).await, (404, "not_available".into(), None), "{target}");
    }
}

#[tokio::test]
async fn tokens_open_what_their_roles_allow() {
    let tokens = vec![
        token("shop", SECRET, &[AccessRole::Submit]),
        token("ops", OTHER, &[AccessRole::Read, AccessRole::Operate]),
    ];
    let api = Api::with(IngressSettings { tokens, ..IngressSettings::default() }).await;
    let call = async |method: &str, target: &str, token: Option<&str>| {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        let body = deposit(5).to_string();
        let body = if method == "POST" { body.as_bytes() } else { b"" };
        api.request(method, target, &headers, body).await
    };
    for (method, target, shop, ops) in [
        ("POST", "/v1/commands", 202, 403),
        ("GET", "/v1/commands", 200, 403),
        ("GET", "/v1/views/balances", 403, 200),
        ("GET", "/v1/streams/account/a", 403, 200),
        ("GET", "/v1/types", 200, 200),
        ("GET", "/v1/members", 403, 200),
        ("GET", "/v1/projections", 403, 200),
        ("GET", "/v1/cache", 403, 200),
        ("GET", "/v1/dead-letters", 403, 200),
        ("GET", "/v1/dead-letters/groups", 403, 200),
        ("GET", "/v1/jobs", 403, 200),
        ("DELETE", "/v1/commands/0190b3c4-0000-7000-8000-000000000001", 404, 403),
        // What the body of a new command says is no filter.
        ("POST", "/v1/commands/cancel", 403, 400),
        ("GET", "/metrics", 403, 200),
        ("GET", "/livez", 200, 200),
        ("GET", "/readyz", 200, 200),
        ("GET", "/startupz", 200, 200),
        ("GET", "/openapi.json", 200, 200),
    ] {
        assert_eq!(call(method, target, Some("secret")).await.status, shop, "{target}");
        assert_eq!(call(method, target, Some("other")).await.status, ops, "{target}");
        let open = ["/livez", "/readyz", "/startupz", "/openapi.json"].contains(&target);
        let without = call(method, target, None).await;
        assert_eq!(without.status, if open { 200 } else { 401 }, "{target}");
        assert_eq!(call(method, target, Some("wrong")).await.status, without.status, "{target}");
    }
    let refused = call("GET", "/v1/members", None).await;
    assert_eq!(refused.problem().1, "unauthenticated");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    assert_eq!(call("GET", "/v1/members", Some("secret")).await.problem().1, "forbidden");
}

#[tokio::test]
async fn keys_of_different_callers_are_different_commands() {
    let tokens = vec![
        token("shop", SECRET, &[AccessRole::Submit]),
        token("other", OTHER, &[AccessRole::Submit]),
    ];
    let api = Api::with(IngressSettings { tokens, ..IngressSettings::default() }).await;
    let submit = async |bearer| {
        let headers = [("Authorization", bearer), ("Idempotency-Key", "k")];
        id_of(&api.submit_with(&headers, &deposit(5)).await)
    };
    assert_ne!(submit("Bearer secret").await, submit("Bearer other").await);
}

#[tokio::test]
async fn probes_and_metrics_are_served_here_and_on_the_admin_address() {
    let api = Api::start().await;
    api.submit(&deposit(5)).await;
    api.submit(&deposit(0)).await;
    let observed = Observed { health: api.health.clone(), metrics: install_metrics().ok() };
    let admin = admin::start(([127, 0, 0, 1], 0).into(), observed, api.stop.clone()).unwrap();
    for address in [api.address, admin.local_addr] {
        let get = async |target: &str| {
            Client::connect(address).await.request("GET", target, &[], b"").await
        };
        assert_eq!(get("/livez").await.json()["status"], "ok");
        assert_eq!(get("/startupz").await.json()["status"], "ok");
        let ready = get("/readyz").await;
        assert_eq!((ready.status, &ready.json()["checks"][0]["name"]), (200, &json!("store")));
        let metrics = get("/metrics").await;
        assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
        for line in [
            "adjutant_intake_accepted_total{intake=\"http\"}",
            "adjutant_intake_refused_total{intake=\"http\",code=\"rule_violation\"}",
            "adjutant_intake_batch_commands_bucket",
            "adjutant_intake_commit_seconds_sum",
        ] {
            assert!(metrics.body.contains(line), "{line} is missing:\n{}", metrics.body);
        }
    }
    let mut client = Client::connect(admin.local_addr).await;
    assert_eq!(client.request("GET", "/v1/members", &[], b"").await.status, 404);
    api.store.inside().down = true;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let ready = client.request("GET", "/readyz", &[], b"").await;
    assert_eq!((ready.status, &ready.json()["checks"][0]["status"]), (503, &json!("failed")));
}

#[tokio::test]
async fn the_contract_describes_every_path() {
    let api = Api::start().await;
    let contract = api.get("/openapi.json").await.json();
    assert_eq!(contract["openapi"], "3.1.0");
    for (path, method) in [
        ("/v1/commands", "post"),
        ("/v1/commands", "get"),
        ("/v1/commands/batch", "post"),
        ("/v1/commands/{id}", "get"),
        ("/v1/commands/{id}/watch", "get"),
        ("/v1/views/{view}/{key}", "get"),
        ("/v1/views/{view}", "get"),
        ("/v1/streams/{type}/{id}", "get"),
        ("/v1/types", "get"),
        ("/v1/types/{type}", "get"),
        ("/v1/members", "get"),
        ("/v1/projections", "get"),
        ("/v1/cache", "get"),
    ] {
        assert!(contract["paths"][path][method].is_object(), "{method} {path}");
    }
    // Every reference leads somewhere.
    let text = contract.to_string();
    for name in text.split("#/components/schemas/").skip(1).filter_map(|r| r.split('"').next()) {
        assert!(contract["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408_and_a_head_that_does_not_arrive_is_cut_off() {
    let settings = IngressSettings {
        body_timeout_ms: 100,
        header_timeout_ms: 200,
        ..IngressSettings::default()
    };
    let api = Api::with(settings).await;
    let mut client = Client::connect(api.address).await;
    client
        .send(b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        .await;
    let answer = client.answer("POST").await.unwrap();
    assert_eq!(answer.problem(), (408, "request_timeout".into()));
    let mut client = Client::connect(api.address).await;
    client.send(b"POST /v1/commands HT").await;
    // hyper answers 408 without a body, or closes.
    let answer = tokio::time::timeout(Duration::from_secs(5), client.answer("POST")).await.unwrap();
    assert!(answer.is_none_or(|answer| answer.status == 408));
}

#[tokio::test]
async fn bodies_in_memory_are_bounded_over_all_connections() {
    let settings = IngressSettings { body_memory_bytes: 100_000, ..IngressSettings::default() };
    let api = Api::with(settings).await;
    let head = b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n";
    let mut slow = Client::connect(api.address).await;
    slow.send(head).await;
    slow.send(&vec![b' '; 50_000]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut second = Client::connect(api.address).await;
    second.send(head).await;
    second.send(&vec![b' '; 60_000]).await;
    let answer = second.answer("POST").await.unwrap();
    assert_eq!(answer.problem(), (503, "overloaded".into()));
    drop(slow);
    loop {
        let command = with(deposit(1), "stream", "account/b");
        let mut body = command.to_string().into_bytes();
        body.resize(60_000, b' ');
        let json = [("Content-Type", "application/json")];
        if api.request("POST", "/v1/commands", &json, &body).await.status == 202 {
            break;
        }
    }
}

#[tokio::test]
async fn more_connections_than_allowed_wait_their_turn() {
    let settings = IngressSettings { max_connections: 2, ..IngressSettings::default() };
    let api = Api::with(settings).await;
    let mut one = Client::connect(api.address).await;
    assert_eq!(one.request("GET", "/livez", &[], b"").await.status, 200);
    let two = Client::connect(api.address).await;
    let mut three = Client::connect(api.address).await;
    let third = three.request("GET", "/livez", &[], b"");
    tokio::pin!(third);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut third).await.is_err());
    drop(two);
    assert_eq!(third.await.status, 200);
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_connection_goes_on() {
    let api = Api::start().await;
    api.store.script([Script::Panic]);
    let mut client = Client::connect(api.address).await;
    let json = [("Content-Type", "application/json")];
    let body = deposit(5).to_string();
    let answer = client.request("POST", "/v1/commands", &json, body.as_bytes()).await;
    assert_eq!(answer.status, 500);
    let answer = client.request("POST", "/v1/commands", &json, body.as_bytes()).await;
    assert_eq!(answer.status, 202);
    let body = with(deposit(5), "payload", json!({ "amount": 5, "note": "panic" })).to_string();
    let answer = client.request("POST", "/v1/commands", &json, body.as_bytes()).await;
    assert_eq!(answer.problem(), (500, "internal".into()));
}

#[tokio::test]
async fn stopping_ends_requests_in_flight_and_answers_long_polls_at_once() {
    let slow = MemoryStore { accept_takes: Duration::from_millis(200), ..MemoryStore::default() };
    let api = Api::on(slow, IngressSettings::default()).await;
    let id = id_of(&api.submit(&deposit(5)).await);
    let mut idle = Client::connect(api.address).await;
    assert_eq!(idle.request("GET", "/livez", &[], b"").await.status, 200);
    let target = format!("/v1/commands/{id}?wait=60");
    let (six, seven) = (deposit(6), deposit(7));
    let started = tokio::time::Instant::now();
    let (poll, preferred, in_flight, ()) = tokio::join!(
        api.get(&target),
        api.submit_with(&[("Prefer", "wait=60")], &seven),
        api.submit(&six),
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            api.stop.cancel();
        }
    );
    assert_eq!((poll.status, &poll.json()["status"]), (200, &json!("accepted")));
    assert_eq!((preferred.status, in_flight.status), (202, 202));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    tokio::time::timeout(Duration::from_secs(1), api.join).await.expect("it ends").unwrap();
    assert!(tokio::net::TcpStream::connect(api.address).await.is_err());
    api.store.end(id, OutcomeStatus::Succeeded);
}

#[tokio::test]
async fn what_is_no_http_is_answered_or_cut_off() {
    let api = Api::start().await;
    for nonsense in
        [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"]
    {
        let mut client = Client::connect(api.address).await;
        client.send(nonsense).await;
        client.send(&[b'\n'; 64]).await;
        let answer = tokio::time::timeout(Duration::from_secs(5), client.answer("GET")).await;
        assert!(answer.unwrap().is_none_or(|answer| answer.status == 400));
    }
    let mut client = Client::connect(api.address).await;
    client.send(b"GET / HTTP/1.1\r\nX: ").await;
    client.send(&vec![b'x'; 100_000]).await;
    client.send(b"\r\n\r\n").await;
    assert!(client.answer("GET").await.is_none_or(|answer| answer.status == 431));
}

#[tokio::test]
async fn an_address_that_is_taken_says_so() {
    let api = Api::start().await;
    let taken = crate::http_server::bind(api.address);
    assert!(taken.is_err());
}
