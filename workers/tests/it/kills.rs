//! Processes are killed and stopped at random while commands come in. Afterwards every command that
//! was answered has exactly one outcome, nothing happened twice, order was kept, and views equal the
//! fold.

use std::time::Instant;

use crate::support::{
    api::Api,
    eventually,
    process::Bank,
    site::{Look, Site},
    traffic::{Random, Traffic},
};

/// Which processes are killed in which order, and what clients send; another with
/// `ADJUTANT_TEST_SEED`.
fn seed() -> u64 {
    std::env::var("ADJUTANT_TEST_SEED").map_or(2, |seed| seed.parse().expect("a number"))
}

const KILLS_A_ROLE: usize = 3;
const ROLES: [&str; 4] = ["ingress", "relay", "command-worker", "projection-worker"];
/// How much must be executed between two kills, so that each hits a system that works.
const BETWEEN: i64 = 60;

/// Single ingress and relay, two of each worker.
struct Fleet {
    port: u16,
    processes: Vec<Bank>,
    began: Instant,
    /// Dropped last: a process that lives would declare its queues again.
    site: Site,
}

impl Fleet {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut fleet =
            Self { site: Site::new().await, port, processes: Vec::new(), began: Instant::now() };
        for role in ["ingress", "relay"] {
            fleet.add(role).await;
        }
        for role in ["command-worker", "projection-worker"] {
            fleet.add(role).await;
            fleet.add(role).await;
        }
        fleet
    }

    async fn add(&mut self, role: &str) {
        let launch = self.site.launch(role);
        // Clients come again to the same address.
        let listen = format!("127.0.0.1:{}", self.port);
        self.processes.push(launch.set("server.listen", listen).start().await);
    }

    fn api(&self) -> Api {
        Api(([127, 0, 0, 1], self.port).into())
    }

    fn one_of(&self, role: &str, random: &mut Random) -> usize {
        let all: Vec<_> =
            (0..self.processes.len()).filter(|i| self.processes[*i].roles == role).collect();
        all[random.below(all.len() as u64) as usize]
    }

    async fn kill(&mut self, role: &str, random: &mut Random, look: &mut Look) {
        let victim = self.one_of(role, random);
        let unfinished = eventually("commands are unfinished", async || {
            Some(look.unfinished().await).filter(|unfinished| *unfinished > 0)
        })
        .await;
        self.processes[victim].kill();
        println!(
            "{:5.1} s: SIGKILL {role} {}, {unfinished} commands unfinished",
            self.began.elapsed().as_secs_f64(),
            self.processes[victim].pid()
        );
        self.processes.remove(victim);
        self.add(role).await;
    }

    /// Stops a process for longer than its heartbeats may be missing, then lets it go on with what
    /// it had in hand.
    async fn pause(&mut self, role: &str, random: &mut Random, look: &mut Look) {
        let paused = self.one_of(role, random);
        let paused = &self.processes[paused];
        let unfinished = look.unfinished().await;
        paused.signal("STOP");
        let api = self.api();
        let is_member = async || api.members().await.iter().any(|it| paused.is_member(it));
        eventually("it counts as gone", async || (!is_member().await).then_some(())).await;
        let ended = look.ended().await;
        eventually("the others go on", async || (look.ended().await > ended + 20).then_some(()))
            .await;
        println!(
            "{:5.1} s: SIGSTOP {role} {} until here, {unfinished} commands were unfinished",
            self.began.elapsed().as_secs_f64(),
            paused.pid()
        );
        paused.signal("CONT");
        eventually("it is back", async || is_member().await.then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_under_load_lose_nothing_and_repeat_nothing() {
    let mut fleet = Fleet::start().await;
    let mut look = fleet.site.look().await;
    let accounts: Vec<String> = (0..12).map(|n| format!("acc-{n}")).collect();
    let traffic = Traffic::start(fleet.api().0, &accounts, seed());

    let mut random = Random(seed());
    let mut victims: Vec<&str> = ROLES.repeat(KILLS_A_ROLE);
    random.shuffle(&mut victims);
    for (kill, role) in victims.iter().enumerate() {
        let ended = look.ended().await;
        eventually("work goes on", async || (look.ended().await >= ended + BETWEEN).then_some(()))
            .await;
        fleet.kill(role, &mut random, &mut look).await;
        match kill {
            3 => fleet.pause("command-worker", &mut random, &mut look).await,
            7 => fleet.pause("projection-worker", &mut random, &mut look).await,
            _ => {}
        }
    }
    let sent = traffic.stop().await;
    look.until_quiet().await;
    println!(
        "{:5.1} s: {} commands ended, {} requests were repeated",
        fleet.began.elapsed().as_secs_f64(),
        sent.commands(),
        sent.repeated()
    );

    sent.assert_order(&mut look).await;
    assert_eq!(look.ended().await, i64::try_from(sent.commands()).unwrap());
    let (code, verdict) = fleet.site.verify(Some(sent.answers())).await;
    assert_eq!(code, 0, "{verdict}");
    for mut process in fleet.processes {
        let (status, took) = process.stop().await;
        assert_eq!(status.code(), Some(0), "{} after {took:?}", process.roles);
    }
}
