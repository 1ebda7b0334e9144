//! A caller cannot reach, through us, what it cannot reach itself.

use super::*;

/// As it is without settings: public addresses by `https` alone.
fn guarded() -> CallbackSettings {
    CallbackSettings { rules: TargetRules::default(), ..quick() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_plainly_is_no_public_address_is_not_accepted() {
    let service = Service::start(guarded()).await;
    let refused = async |url: &str| {
        let answer = service.api.submit(&submission(url, json!({ "amount": 1 }))).await;
        assert_eq!(answer.status, 422, "{url}: {}", answer.body);
        let problem = answer.json();
        assert_eq!(
            (&problem["code"], problem["errors"][0]["pointer"].as_str()),
            (&json!("rule_violation"), Some("/callback_url"))
        );
        problem["errors"][0]["rule"].as_str().expect("a rule").to_owned()
    };
    assert_eq!(refused("https://127.0.0.1/").await, "address");
    assert_eq!(refused("https://169.254.169.254/latest/meta-data/").await, "address");
    assert_eq!(refused("https://[::ffff:10.0.0.1]/").await, "address");
    assert_eq!(refused("https://localhost:8443/").await, "address");
    assert_eq!(refused("http://hooks.example/").await, "https");
    assert_eq!(refused("https://me:secret@hooks.example/").await, "credentials");
    let commands = service.api.get("/v1/commands").await.json();
    assert_eq!(commands["items"], json!([]), "nothing was accepted");

    let deaf = api(&service.site, &service.process, &CallbackSettings::default());
    let answer = deaf.submit(&submission("https://hooks.example/", json!({ "amount": 1 }))).await;
    assert_eq!((answer.status, &answer.json()["code"]), (422, &json!("callbacks_not_configured")));
}

/// Past the door (another setting, another release) each try still checks: the address in the URL,
/// and what a name is found to mean when the connection is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_address_is_not_connected_to_by_whatever_name() {
    let service = Service::start(CallbackSettings { attempts: 9, ..guarded() }).await;
    let receiver = Receiver::start([]).await;
    let port = receiver.address.port();
    for (i, host) in
        ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"].iter().enumerate()
    {
        let url = format!("http://{host}:{port}/hook");
        let url = reqwest::Url::parse(&url).expect("a URL");
        let command = calling(add("a", 1), url.as_str());
        service.site.store.accept(vec![command]).await.expect("accept");
        let letters = eventually("it is refused", async || {
            let letters = service.letters().await;
            (letters.len() == i + 1).then_some(letters)
        })
        .await;
        let letter = &letters[0];
        assert_eq!(letter["error"]["code"], "callback_refused", "{host}: {letter}");
        assert_eq!(letter["attempts"], 1, "{host}: trying again would not help");
    }
    assert_eq!(receiver.received().len(), 0);
}
