//! What the store promises to several processes, some of which are killed. Each is this test
//! program again, running only `worker`.

mod common;

use std::collections::HashSet;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{id, names, record, root, store};
use runhcs_state::{Error, Record, Store};

/// What a worker process is told to do, and where.
const TASK: &str = "RUNHCS_STATE_TEST_TASK";
const ROOT: &str = "RUNHCS_STATE_TEST_ROOT";

/// A worker process that is killed and reaped at the end.
struct Worker(Child);

impl Worker {
    fn start(task: &str, root: &Path) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "worker", "--ignored", "--nocapture", "--test-threads=1"])
            .env(TASK, task)
            .env(ROOT, root)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a worker");
        Self(child)
    }

    /// Waits for the worker to say `word`.
    fn expect(&mut self, word: &str) {
        let mut lines = Vec::new();
        for line in BufReader::new(self.0.stdout.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            // The test harness writes before it, on the same line.
            if line.ends_with(word) {
                return;
            }
            lines.push(line);
        }
        panic!("the worker never said {word:?}, but: {lines:#?}");
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "the other tests start it as a process of its own"]
fn worker() {
    let (Ok(task), Ok(root)) = (env::var(TASK), env::var(ROOT)) else { return };
    let store = Store::open(Path::new(&root)).unwrap();
    let say = |word: &str| println!("{word}");
    match task.as_str() {
        "claim" => match store.claim(&record("one")) {
            Ok(_) => say("won"),
            Err(Error::Exists(_)) => say("lost"),
            Err(error) => panic!("{error:?}"),
        },
        "hold" => {
            let locked = store.claim(&record("one")).unwrap();
            say("locked");
            std::thread::sleep(Duration::from_secs(1000));
            drop(locked);
        }
        "churn" => {
            say("churning");
            for round in 0.. {
                let id = format!("c{}", round % 3);
                if let Ok(locked) = store.claim(&record(&id)) {
                    locked.put("value", &vec![round; 1000]).unwrap();
                    locked.remove().unwrap();
                    drop(locked);
                }
            }
        }
        "count" => {
            for _ in 0..200 {
                let locked = store.entry(&id("one")).unwrap().lock().unwrap();
                let count: u32 = locked.get("count").unwrap().unwrap_or(0);
                locked.put("count", &(count + 1)).unwrap();
            }
            say("counted");
        }
        other => panic!("unknown task {other}"),
    }
}

#[test]
fn of_many_processes_one_gets_the_id() {
    let (temp, store) = store();
    for _ in 0..3 {
        let mut workers: Vec<Worker> =
            (0..12).map(|_| Worker::start("claim", &root(&temp))).collect();
        let mut won = 0;
        for worker in &mut workers {
            let mut out = String::new();
            std::io::Read::read_to_string(worker.0.stdout.as_mut().unwrap(), &mut out).unwrap();
            assert!(worker.0.wait().unwrap().success(), "{out}");
            assert!(out.contains("won") ^ out.contains("lost"), "{out}");
            won += u32::from(out.contains("won"));
        }
        assert_eq!(won, 1);
        assert_eq!(names(&root(&temp).join("~tmp")), [] as [String; 0]);
        store.entry(&id("one")).unwrap().lock().unwrap().remove().unwrap();
    }
}

#[test]
fn of_many_threads_one_gets_the_id() {
    let (_temp, store) = store();
    for round in 0..100 {
        let barrier = std::sync::Barrier::new(8);
        let outcomes: Vec<bool> = std::thread::scope(|scope| {
            let claim = |thread: usize| {
                let record = Record { owner: thread.to_string(), ..record("one") };
                barrier.wait();
                match store.claim(&record) {
                    Ok(locked) => {
                        assert_eq!(locked.record().unwrap(), record);
                        true
                    }
                    Err(Error::Exists(_)) => false,
                    Err(error) => panic!("{error:?}"),
                }
            };
            let threads: Vec<_> = (0..8).map(|thread| scope.spawn(move || claim(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|won| **won).count(), 1, "round {round}: {outcomes:?}");
        store.entry(&id("one")).unwrap().lock().unwrap().remove().unwrap();
    }
}

#[test]
fn the_lock_excludes_other_processes() {
    let (temp, store) = store();
    drop(store.claim(&record("one")).unwrap());
    let mut workers: Vec<Worker> = (0..4).map(|_| Worker::start("count", &root(&temp))).collect();
    for worker in &mut workers {
        worker.expect("counted");
        assert!(worker.0.wait().unwrap().success());
    }
    let count: Option<u32> = store.entry(&id("one")).unwrap().get("count").unwrap();
    assert_eq!(count, Some(800), "updates were lost");
}

#[test]
fn a_killed_process_gives_up_its_lock_and_leaves_its_entry() {
    let (temp, store) = store();
    let mut holder = Worker::start("hold", &root(&temp));
    holder.expect("locked");
    let waiter = {
        let store = store.clone();
        std::thread::spawn(move || {
            let locked = store.entry(&id("one")).unwrap().lock().unwrap();
            (Instant::now(), locked.record().unwrap())
        })
    };
    std::thread::sleep(Duration::from_millis(200));
    assert!(!waiter.is_finished(), "the lock was not held");
    let killed = Instant::now();
    holder.kill();
    let (locked, found) = waiter.join().unwrap();
    assert!(locked >= killed);
    assert_eq!(found, record("one"));
}

#[test]
fn who_waits_for_an_entry_that_is_removed_learns_it() {
    let (_temp, store) = store();
    for claimed_again in [false, true] {
        let locked = store.claim(&record("one")).unwrap();
        let waiting = store.entry(&id("one")).unwrap();
        let waiter = std::thread::spawn(move || waiting.lock().map(drop));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiter.is_finished(), "the lock was not held");
        locked.remove().unwrap();
        drop(locked);
        let next = claimed_again.then(|| store.claim(&record("one")).unwrap());
        let outcome = waiter.join().unwrap();
        assert!(matches!(outcome, Err(Error::NotFound(_))), "{outcome:?}");
        drop(next);
    }
}

#[test]
fn a_child_that_inherits_the_descriptor_does_not_keep_the_lock() {
    let (_temp, store) = store();
    let locked = store.claim(&record("one")).unwrap();
    // Between fork and exec the child has copies of all descriptors; it stays there for a while.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new("true");
    let copy = reader.try_clone().unwrap();
    // SAFETY: the closure only calls read(2), which is async-signal-safe.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
            rustix::io::read(&copy, &mut [0u8; 1]).map(drop).map_err(Into::into)
        });
    }
    let spawner = std::thread::spawn(move || command.status().unwrap());
    std::thread::sleep(Duration::from_millis(200));
    drop(locked);
    let again = store.clone();
    let relock = std::thread::spawn(move || again.entry(&id("one")).unwrap().lock().map(drop));
    std::thread::sleep(Duration::from_millis(200));
    let relocked = relock.is_finished();
    std::io::Write::write_all(&mut &writer, b"x").unwrap();
    assert!(spawner.join().unwrap().success());
    relock.join().unwrap().unwrap();
    assert!(relocked, "the child's copy kept the entry locked");
    drop(reader);
}

#[test]
fn what_killed_processes_leave_is_whole_or_swept() {
    let (temp, store) = store();
    let mut leftovers = 0;
    for round in 0..40u64 {
        let mut worker = Worker::start("churn", &root(&temp));
        worker.expect("churning");
        std::thread::sleep(Duration::from_micros(300 + round * 137));
        worker.kill();
        // One that is killed early enough has made nothing at all.
        let claims = root(&temp).join("~tmp");
        leftovers += if claims.exists() { names(&claims).len() } else { 0 };
        for (name, entry) in store.list().unwrap() {
            let (entry, found) = entry.unwrap_or_else(|e| panic!("{name} is half made: {e:?}"));
            assert_eq!(found, record(&name));
            let value: Option<Vec<u32>> = entry.get("value").unwrap();
            assert!(value.is_none_or(|value| value.len() == 1000), "half a value");
            entry.lock().unwrap().remove().unwrap();
        }
    }
    store.claim(&record("last")).unwrap().remove().unwrap();
    assert_eq!(names(&root(&temp)), ["~tmp"]);
    assert_eq!(names(&root(&temp).join("~tmp")), [] as [String; 0]);
    println!("{leftovers} leftovers were swept");
}

#[test]
fn a_reader_never_sees_half_an_entry() {
    let (temp, store) = store();
    let mut worker = Worker::start("churn", &root(&temp));
    worker.expect("churning");
    let mut seen = HashSet::new();
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        for (name, entry) in store.list().unwrap() {
            let (entry, _) = entry.unwrap_or_else(|e| panic!("{name}: {e:?}"));
            match entry.get::<Vec<u32>>("value") {
                Ok(value) => seen.insert(value.is_some()),
                Err(Error::NotFound(_)) => false,
                Err(error) => panic!("{error:?}"),
            };
        }
    }
    assert!(!seen.is_empty(), "the reader never met an entry");
    worker.kill();
}
