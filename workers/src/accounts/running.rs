//! The whole bank in memory: what the parts do together.

use std::time::{Duration, Instant};

use adjutant::{
    message::OutcomeStatus,
    testing::{RunningService, START},
};

use super::{Account, Balances, Close, Deposit, Open, Statements, Withdraw, service};

const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn money_moves_and_both_views_show_it() {
    let began = Instant::now();
    let bank = RunningService::start(service().unwrap()).await;
    println!("started in {:?}", began.elapsed());
    bank.send::<Account>("acc-1", Open { owner: "Ada".into() }).await;
    bank.send::<Account>("acc-1", Deposit { amount: 500 }).await;
    let too_much = bank.send::<Account>("acc-1", Withdraw { amount: 501 }).await;
    let withdrawn = bank.send::<Account>("acc-1", Withdraw { amount: 200 }).await;
    bank.until_idle().await;
    assert_eq!(bank.view::<Balances>("acc-1").await.unwrap().balance, 300);
    assert_eq!(bank.view::<Statements>("acc-1/00000003").await.unwrap().balance, 300);
    assert!(bank.view::<Balances>("acc-2").await.is_none());
    let refused = bank.outcome(too_much).await.unwrap();
    assert_eq!(refused.status, OutcomeStatus::Rejected);
    assert_eq!(bank.outcome(withdrawn).await.unwrap().completed_at, START);
    bank.stop().await;
}

#[tokio::test]
async fn what_is_due_in_a_year_is_done_when_the_year_has_passed() {
    let bank = RunningService::start(service().unwrap()).await;
    bank.send::<Account>("acc-1", Open { owner: "Ada".into() }).await;
    // Later ones first: they are executed in the order of their times.
    for days in [365_u32, 30, 1] {
        let amount = Deposit { amount: i64::from(days) };
        bank.send_at::<Account>("acc-1", amount, START + DAY * days).await;
    }
    let mut balances = Vec::new();
    for days in [0_u32, 1, 28, 1, 335] {
        bank.advance(DAY * days);
        bank.until_idle().await;
        balances.push(bank.view::<Balances>("acc-1").await.unwrap().balance);
    }
    assert_eq!(balances, [0, 1, 1, 31, 396]);
    assert_eq!(bank.view::<Statements>("acc-1/00000004").await.unwrap().amount, 365);
    assert_eq!(bank.now(), START + DAY * 365);
}

#[tokio::test]
async fn a_command_that_breaks_a_rule_is_refused_as_a_client_would_see_it() {
    let bank = RunningService::start(service().unwrap()).await;
    let problem = bank.try_send::<Account>("acc-1", Deposit { amount: 0 }).await.unwrap_err();
    assert_eq!(problem.code.as_str(), "rule_violation");
    bank.try_send::<Account>("acc-1", Close {}).await.unwrap();
    bank.until_idle().await;
}

#[tokio::test]
#[should_panic(expected = "the command is accepted")]
async fn sending_what_is_refused_fails_the_test() {
    let bank = RunningService::start(service().unwrap()).await;
    bank.send::<Account>("acc-1", Deposit { amount: -1 }).await;
}
