//! One process a role; replicas come, go and die.

use std::time::{Duration, Instant};

use adjutant::message::{GroupName, StreamId};
use serde_json::{Value, json};

use crate::support::{
    api::Api,
    eventually,
    process::Bank,
    site::{Site, owned},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_a_role_works_end_to_end() {
    let site = Site::new().await;
    let mut processes = Vec::new();
    for role in ["relay", "command-worker", "projection-worker"] {
        processes.push(site.launch(role).start().await);
    }
    let ingress = site.launch("ingress").start().await;
    let api = Api(ingress.api());

    assert_eq!(api.open("acc-1").await["status"], "succeeded");
    let deposited = api.deposit("acc-1", 500).await;
    assert_eq!(deposited["outcome"]["version"], 2);
    assert_eq!(api.balance_after("acc-1", &deposited).await, 500);
    let refused = api.execute("withdraw", "acc-1", json!({ "amount": 501 })).await;
    assert_eq!(refused["status"], "rejected", "{refused}");

    let members = api.members().await;
    assert_eq!(members.len(), 4);
    for process in processes.iter().chain([&ingress]) {
        let member = members.iter().find(|member| process.is_member(member)).expect("a member");
        assert_eq!(member["roles"], json!([process.roles]));
    }
    processes.push(ingress);
    for mut process in processes.into_iter().rev() {
        let (status, took) = process.stop().await;
        assert_eq!(status.code(), Some(0), "{}", process.roles);
        assert!(took < Duration::from_secs(10), "{} stopped after {took:?}", process.roles);
        assert!(!process.log.text().contains("did not end in time"), "{}", process.log.text());
    }
    assert_eq!(site.verify(None).await.0, 0);
}

/// Replicas of one worker role beside single processes of all others.
struct Replicas {
    role: &'static str,
    groups: Vec<GroupName>,
    api: Api,
    workers: Vec<Bank>,
    _others: Vec<Bank>,
    /// Dropped last: a process that lives would declare its queues again.
    site: Site,
}

/// More than by default, so that each of three replicas has some.
const PARTITIONS: i64 = 16;

impl Replicas {
    async fn start(role: &'static str, groups: Vec<GroupName>) -> Self {
        let site = Site::with_partitions(PARTITIONS).await;
        let other = ["command-worker", "projection-worker"].into_iter().find(|it| *it != role);
        // One process for the rest, to be light.
        let rest = format!("ingress,relay,{}", other.unwrap());
        let others = vec![site.launch(&rest).start().await];
        let api = Api(others[0].api());
        let mut replicas = Self { site, role, groups, api, workers: Vec::new(), _others: others };
        for account in replicas.accounts() {
            replicas.api.post(&[], "open", &account, json!({ "owner": "Ada" })).await;
        }
        for _ in 0..2 {
            replicas.add().await;
        }
        replicas
    }

    async fn add(&mut self) {
        let log = match self.role {
            "command-worker" => "info,lapin=off,adjutant::execute=debug",
            _ => "info,lapin=off,adjutant::worker=debug",
        };
        let worker = self.site.launch(self.role).set("log.level", log).start().await;
        self.workers.push(worker);
    }

    /// An account in every partition.
    fn accounts(&self) -> Vec<String> {
        let in_partition = |partition| {
            let mut names = (0..).map(|n| format!("acc-{n}"));
            names.find(|name| self.partition_of(name) == partition).unwrap()
        };
        (0..PARTITIONS).map(in_partition).collect()
    }

    fn partition_of(&self, account: &str) -> i64 {
        let stream = StreamId::new("account", account).unwrap();
        i64::from(self.site.partitions.of(&stream).0)
    }

    /// What each replica owns of a group, once every partition has exactly one owner among them.
    async fn shares(&self, group: &GroupName) -> Vec<Vec<i64>> {
        eventually("every partition has one owner that lives", async || {
            let members = self.api.members().await;
            let member_of = |worker| members.iter().find(|it| Bank::is_member(worker, it));
            let share = |worker| member_of(worker).map_or(vec![], |member| owned(member, group));
            let shares: Vec<Vec<i64>> = self.workers.iter().map(share).collect();
            let mut all = shares.concat();
            all.sort_unstable();
            (all == (0..PARTITIONS).collect::<Vec<_>>()).then_some(shares)
        })
        .await
    }

    /// Sends a deposit to every partition that a replica owns, until it has dealt with one of each.
    async fn until_it_works(&self, worker: usize, share: &[i64]) {
        let accounts = self.accounts();
        let mut working = vec![];
        let mut seen = 0;
        eventually("the replica consumes its partitions", async || {
            for event in self.workers[worker].log.since(&mut seen) {
                let done = match event["message"].as_str() {
                    Some("command executed") => event["stream"].as_str(),
                    Some("event applied") => event["key"].as_str(),
                    _ => None,
                };
                let account = done.map(|name| name.trim_start_matches("account/"));
                working
                    .extend(account.map(|name| self.partition_of(name.split('/').next().unwrap())));
            }
            let idle = share.iter().filter(|partition| !working.contains(*partition));
            let idle: Vec<_> = idle.map(|partition| *partition as usize).collect();
            for partition in &idle {
                self.api.post(&[], "deposit", &accounts[*partition], json!({ "amount": 1 })).await;
            }
            idle.is_empty().then_some(())
        })
        .await;
    }

    /// Sends a command to each of these partitions and waits until all have taken effect.
    async fn until_served(&self, partitions: &[i64]) {
        let accounts = self.accounts();
        let mut sent = Vec::new();
        for partition in partitions {
            let account = &accounts[*partition as usize];
            let answer = self.api.post(&[], "deposit", account, json!({ "amount": 1 })).await;
            sent.push((account, answer.json()["id"].as_str().unwrap().to_owned()));
        }
        for (account, id) in sent {
            let command = self.api.get(&format!("/v1/commands/{id}?wait=30")).await.json();
            assert_eq!(command["status"], "succeeded", "{command}");
            self.api.balance_after(account, &command).await;
        }
    }

    /// The whole life of replicas.
    async fn live_and_die(mut self) {
        let main = self.groups[0].clone();
        let before = self.shares(&main).await;

        // A third one takes its share. (Where hashing gives it nothing, another one comes.)
        let share = loop {
            self.add().await;
            let shares = self.shares(&main).await;
            if let Some(share) = shares.into_iter().last().filter(|share| !share.is_empty()) {
                break share;
            }
            self.workers.pop();
        };
        let new = self.workers.len() - 1;
        self.until_it_works(new, &share).await;
        let took = self.workers[new].started.elapsed();
        println!(
            "{}: a new replica works on its {} partitions after {took:?}",
            self.role,
            share.len()
        );
        assert!(took < Duration::from_secs(10), "{took:?}");
        let with_new = self.shares(&main).await;
        for (now, before) in with_new.iter().zip(&before) {
            assert!(now.iter().all(|partition| before.contains(partition)), "nothing else moves");
        }

        self.kill_one().await;
        self.stop_one().await;
        let mut look = self.site.look().await;
        look.until_quiet().await;
        let (code, verdict) = self.site.verify(None).await;
        assert_eq!(code, 0, "{verdict}");
    }

    /// The one with the most work is killed: only its partitions move.
    async fn kill_one(&mut self) {
        let victim = self.busiest().await;
        let mut before = self.all_shares().await;
        let killed = Instant::now();
        self.workers[victim].kill();
        self.workers.remove(victim);
        let lost = before.remove(victim);
        let after = self.all_shares().await;
        let noticed = killed.elapsed();
        self.until_served(&lost[0]).await;
        let took = killed.elapsed();
        println!(
            "{}: after SIGKILL, {} partitions had new owners in {noticed:?} and worked in {took:?}",
            self.role,
            lost[0].len()
        );
        assert!(took < Duration::from_secs(20), "{took:?}");
        for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
            assert!(before.iter().all(|partition| after.contains(partition)), "it keeps its own");
        }
    }

    /// SIGTERM: hands over at once.
    async fn stop_one(&mut self) {
        let victim = self.busiest().await;
        let share = self.all_shares().await[victim][0].clone();
        let mut stopping = self.workers.remove(victim);
        let told = Instant::now();
        stopping.signal("TERM");
        self.shares(&self.groups[0]).await;
        let noticed = told.elapsed();
        self.until_served(&share).await;
        let took = told.elapsed();
        let (status, _) = stopping.stop().await;
        let ended = told.elapsed();
        println!(
            "{}: after SIGTERM, {} partitions had new owners in {noticed:?} and worked in {took:?}; it ended in {ended:?}",
            self.role,
            share.len()
        );
        assert_eq!(status.code(), Some(0));
        assert!(ended < Duration::from_secs(10), "{ended:?}");
        assert!(took < Duration::from_secs(4), "the partitions are handed over at once: {took:?}");
    }

    async fn busiest(&self) -> usize {
        let shares = self.all_shares().await;
        (0..shares.len()).max_by_key(|worker| shares[*worker][0].len()).unwrap()
    }

    /// By replica and by group.
    async fn all_shares(&self) -> Vec<Vec<Vec<i64>>> {
        let mut all = vec![Vec::new(); self.workers.len()];
        for group in &self.groups {
            for (shares, share) in all.iter_mut().zip(self.shares(group).await) {
                shares.push(share);
            }
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_workers_share_the_partitions_and_replace_each_other() {
    Replicas::start("command-worker", vec![GroupName::commands()]).await.live_and_die().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projection_workers_share_the_partitions_and_replace_each_other() {
    let groups = ["balances", "statements"].map(GroupName::projection).to_vec();
    Replicas::start("projection-worker", groups).await.live_and_die().await;
}

/// What hashing says is what the members themselves do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_members_shows_roles_groups_and_counters() {
    let site = Site::new().await;
    let bank = site.launch("all").start().await;
    let api = Api(bank.api());
    api.open("acc-1").await;
    let shown = eventually("the counters are shown", async || {
        let member = api.members().await.pop()?;
        let entries = &member["stats"]["entries"];
        let sum = |group: &str| {
            entries[group]["broker"].as_i64().unwrap_or_default()
                + entries[group]["log"].as_i64().unwrap_or_default()
        };
        (sum("commands") == 1 && sum("projection.balances") == 1).then_some(member)
    })
    .await;
    assert_eq!(shown["partitions"]["commands"], json!([0, 1, 2, 3]));
    assert_eq!(shown["draining"], Value::Bool(false));
    assert!(bank.is_member(&shown));
}
