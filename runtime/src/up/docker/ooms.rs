//! Which containers have run out of memory.
//!
//! The engine tells it by an event and in the state of the container, but its watcher (containerd's) looks a
//! container's cgroup up after the kernel has woken it, and says nothing if the cgroup is gone by then, as that of a
//! container with one process is. So the kernel's log is read too, as kubelet does for its `SystemOOM` events: the
//! kernel writes there which cgroup ran out of memory before it kills, at most ten times in five seconds.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

/// Where the kernel's log is read, one record a read.
const KERNEL_LOG: &str = "/dev/kmsg";
/// More than a record may be long (the kernel's `PRINTK_MESSAGE_MAX`).
const RECORD: usize = 8 << 10;

/// The containers that are known to have run out of memory.
pub struct Ooms(Mutex<Known>);

struct Known {
    ids: BTreeSet<String>,
    /// The kernel's log, unless this process may not read it.
    log: Option<File>,
}

impl Ooms {
    /// Nothing is known yet.
    pub fn new() -> Self {
        let mut options = File::options();
        options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        let log = options.open(KERNEL_LOG);
        if let Err(e) = &log {
            tracing::debug!("{KERNEL_LOG}: {e}; only the engine tells which containers run out of memory");
        }
        Ooms(Mutex::new(Known { ids: BTreeSet::new(), log: log.ok() }))
    }

    /// Notes that a container has run out of memory.
    pub fn note(&self, id: String) {
        self.known().ids.insert(id);
    }

    /// Whether a container that was killed is known to have run out of memory.
    pub fn contains(&self, id: &str) -> bool {
        let mut known = self.known();
        known.read_log();
        known.ids.contains(id)
    }

    /// Forgets the containers that are not there any more.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.known().ids.retain(|id| is_there(id));
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().expect("nobody panics while it is held")
    }
}

impl Known {
    /// Reads what the kernel has logged since the last time.
    fn read_log(&mut self) {
        let Some(log) = &mut self.log else { return };
        let mut record = [0; RECORD];
        loop {
            match log.read(&mut record) {
                Ok(0) => return,
                Ok(length) => self.ids.extend(container_of(&String::from_utf8_lossy(&record[..length]))),
                // Records were overwritten before they were read; the next read goes on behind them.
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    tracing::warn!("{KERNEL_LOG}: {e}; only the engine tells which containers run out of memory");
                    self.log = None;
                    return;
                }
            }
        }
    }
}

/// The container that has run out of memory, if this record of the kernel's log says so: the last part of the path of
/// its cgroup, `/docker/<id>` or, made by systemd, `/system.slice/docker-<id>.scope`.
fn container_of(record: &str) -> Option<String> {
    let (prefix, said) = record.split_once(";oom-kill:")?;
    // What processes write there has another facility than the kernel's, which is 0 (the bits from the third on).
    prefix.split(',').next()?.parse::<u32>().ok().filter(|&priority| priority < 8)?;
    let path = said.split(',').find_map(|part| part.strip_prefix("task_memcg="))?;
    let name = path.trim_end().rsplit('/').next()?;
    let id = name.strip_prefix("docker-").and_then(|name| name.strip_suffix(".scope")).unwrap_or(name);
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::container_of;

    #[test]
    fn the_kernel_says_which_container_ran_out_of_memory() {
        let id = "a63548f4f8ad1686a962581582e4387633976bdd3aaccf9ae353cf25ae2c3b85";
        let check = |record: &str, want: Option<&str>| assert_eq!(container_of(record).as_deref(), want, "{record}");
        let said = |path: &str| {
            format!(
                "6,1042,233395364,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,\
                 oom_memcg={path},task_memcg={path},task=busybox,pid=21946,uid=0\n"
            )
        };
        check(&said(&format!("/docker/{id}")), Some(id));
        check(&said(&format!("/system.slice/docker-{id}.scope")), Some(id));
        check(&said("/user.slice/user-1000.slice/session-1.scope"), None);
        check(&said("/"), None);
        check("3,1043,233395409,-;Memory cgroup out of memory: Killed process 21946 (busybox)\n", None);
        check(&format!("14,1044,1,-;oom-kill:task_memcg=/docker/{id},task=x\n"), None);
    }
}
