//! Receivers that fail, hang, redirect, or are gone.

use adjutant::callback::HostBreaker;
use futures_util::future::join_all;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_gets_the_same_again() {
    let service = Service::start(CallbackSettings { attempts: 9, ..quick() }).await;
    let answers = [500, 302, 404, 429].map(Answer::Status);
    let receiver = Receiver::start(answers).await;
    service.api.submit(&submission(&receiver.url(), json!({ "amount": 5 }))).await;
    let received = receiver.until(5).await;
    for again in &received {
        again.assert_signed();
        assert_eq!((again.id(), &again.body), (received[0].id(), &received[0].body));
    }
    service.until_nothing_is_owed().await;
    assert_eq!((receiver.received().len(), service.letters().await.len()), (5, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed() {
    let service = Service::start(quick()).await;
    let elsewhere = Receiver::start([]).await;
    let redirect = || Answer::RedirectTo(elsewhere.url());
    let receiver = Receiver::start([redirect(), redirect()]).await;
    service.api.submit(&submission(&receiver.url(), json!({ "amount": 5 }))).await;
    let letter = service.letter().await;
    assert_eq!(letter["error"]["code"], "callback_failed");
    let message = letter["error"]["message"].as_str().expect("a message");
    assert!(message.contains("redirects are not followed"), "{message}");
    assert_eq!((receiver.received().len(), elsewhere.received().len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_gone_is_not_asked_again() {
    let service = Service::start(CallbackSettings { attempts: 9, ..quick() }).await;
    let receiver = Receiver::start([Answer::Status(410)]).await;
    service.api.submit(&submission(&receiver.url(), json!({ "amount": 5 }))).await;
    let letter = service.letter().await;
    assert_eq!(
        (&letter["error"]["code"], &letter["attempts"]),
        (&json!("callback_gone"), &json!(1))
    );
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hangs_does_not_delay_another() {
    let settings = CallbackSettings { concurrency: 4, per_host: 4, ..quick() };
    let service = Service::start(settings).await;
    let hangs = Receiver::start_on("127.0.0.2", vec![Answer::Hang; 100]).await;
    let works = Receiver::start([]).await;
    let batch =
        |url: String| (0..40).map(move |i| calling(add(&format!("c{i}"), 1), &url)).collect();
    service.site.store.accept(batch(hangs.url())).await.expect("accept");
    hangs.until(1).await;
    service.site.store.accept(batch(works.url())).await.expect("accept");
    works.until(40).await;
    assert_eq!(hangs.received().len(), 1, "one that was never seen to work gets one at a time");
    eventually("the rest waits", async || (owed(&service.site).await == 40).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_fails_is_left_alone_and_what_it_is_owed_ends_in_time() {
    let breaker = HostBreaker {
        failures: 3,
        rest: Duration::from_secs(600),
        longest_rest: Duration::from_secs(600),
    };
    let settings = CallbackSettings {
        breaker,
        attempts: 100,
        give_up_after: Duration::from_secs(2),
        ..quick()
    };
    let service = Service::start(settings).await;
    let receiver = Receiver::start(vec![Answer::Status(503); 100]).await;
    let commands = (0..20).map(|i| calling(add(&format!("c{i}"), 1), &receiver.url())).collect();
    service.site.store.accept(commands).await.expect("accept");
    receiver.until(3).await;
    let letters = eventually("all of them are given up", async || {
        let letters = service.letters().await;
        (letters.len() == 20).then_some(letters)
    })
    .await;
    assert_eq!(receiver.received().len(), 3, "it was left alone");
    let untried = letters.iter().filter(|letter| letter["attempts"] == 0).count();
    assert!(untried >= 17, "{untried} burnt no try");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_taken_is_a_dead_letter_that_a_person_retries_once() {
    let service = Service::start(quick()).await;
    let receiver = Receiver::start(vec![Answer::Status(500); 2]).await;
    let url = format!("{}?token=s3cret", receiver.url());
    let sent = service.api.submit(&submission(&url, json!({ "amount": 5 }))).await.json();
    let letter = service.letter().await;
    assert_eq!(receiver.received().len(), 2);
    let shown = |name: &str| letter[name].as_str().expect("a text").to_owned();
    let words = ["kind", "group", "key", "type", "command_id", "state"].map(shown);
    let command = sent["id"].as_str().expect("an id");
    assert_eq!(words, ["callback", "callbacks", "127.0.0.1", "counter.add", command, "open"]);
    assert_eq!(letter["error"]["message"], "it answered 500 Internal Server Error");
    let target = format!("/v1/dead-letters/{}", shown("id"));
    let details = service.api.get(&target).await;
    assert!(!details.body.contains("s3cret"), "{}", details.body);
    let details = details.json();
    assert_eq!(details["callback"]["webhook_id"], receiver.received()[0].id());
    assert_eq!(details["callback"]["attempts"], 2);
    assert_eq!(details["command"]["id"], sent["id"]);

    let edited = json!({ "payload": { "amount": 1 } });
    let refused = service.post(&format!("{target}/retry"), &edited).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let (retry, body) = (format!("{target}/retry"), json!({ "reason": "they are back" }));
    let answers = join_all((0..50).map(|_| service.post(&retry, &body))).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 49, "{statuses:?}");
    let received = receiver.until(3).await;
    assert_eq!(received[2].id(), received[0].id());
    service.until_nothing_is_owed().await;
    let details = eventually("it is resolved", async || {
        let details = service.api.get(&target).await.json();
        (details["state"] == "resolved").then_some(details)
    })
    .await;
    assert_eq!(details["audit"].as_array().expect("audit").len(), 1);
    assert_eq!(details["callback"], Value::Null);
    assert_eq!(receiver.received().len(), 3, "once");
}

/// A job does the same with all that match; to discard one ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_retries_all_of_a_host_and_a_discard_ends_one() {
    let service = Service::start(CallbackSettings { attempts: 1, ..quick() }).await;
    let receiver = Receiver::start(vec![Answer::Status(500); 8]).await;
    let other = Receiver::start_on("127.0.0.2", [Answer::Status(500)]).await;
    let mut commands: Vec<_> =
        (0..8).map(|i| calling(add(&format!("c{i}"), 1), &receiver.url())).collect();
    commands.push(calling(add("other", 1), &other.url()));
    service.site.store.accept(commands).await.expect("accept");
    let letters = eventually("nine dead letters", async || {
        let letters = service.letters().await;
        (letters.len() == 9).then_some(letters)
    })
    .await;
    let of_other = letters.iter().find(|letter| letter["key"] == "127.0.0.2").expect("one");
    let target = format!("/v1/dead-letters/{}/discard", of_other["id"].as_str().expect("an id"));
    let discarded = service.post(&target, &json!({ "reason": "told by mail" })).await;
    assert_eq!(discarded.status, 200, "{}", discarded.body);
    assert_eq!(discarded.json()["state"], "discarded");

    let filter = json!({ "kind": "callback", "key": "127.0.0.1" });
    let job = service.post("/v1/dead-letters/retry", &filter).await;
    assert_eq!(job.status, 202, "{}", job.body);
    receiver.until(16).await;
    service.until_nothing_is_owed().await;
    let job = format!("/v1/jobs/{}", job.json()["id"].as_str().expect("an id"));
    eventually("the job is done", async || {
        let job = service.api.get(&job).await.json();
        (job["state"] == "done" && job["done"] == 8).then_some(())
    })
    .await;
    assert_eq!(other.received().len(), 1, "what was discarded is not told");
}
