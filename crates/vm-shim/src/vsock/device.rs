//! The vhost-user side of the vsock device: moves packets between the guest's virtqueues and the
//! [`Mux`].
//!
//! The guest owns the queues and what lies in them. A buffer that makes no sense is given back
//! unused; nothing that a guest puts there ends the device or the process.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;
use vhost::vhost_user::message::VhostUserVirtioFeatures;
use vhost::vhost_user::{Listener as VhostListener, VhostUserProtocolFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringMutex, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use super::mux::{Listener, Mux};
use super::packet::{Header, MAX_PAYLOAD};

/// The guest's context id. It means nothing outside this one device.
const GUEST_CID: u64 = 3;

/// Queues of the device that vhost-user carries: guest-bound, host-bound. QEMU keeps the event
/// queue to itself.
const QUEUES: usize = 2;
const TO_GUEST: u16 = 0;
const TO_HOST: u16 = 1;
/// Marks the multiplexer's poll descriptor. The number after the queues is the exit event's.
const SOCKETS: u16 = QUEUES as u16 + 1;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Vring = VringMutex<Memory>;

/// Connects to ports of the guest.
#[derive(Clone)]
pub struct Dialer(Arc<Shared>);

/// A vsock device that serves one QEMU.
pub struct Vsock {
    /// For streams to the guest.
    pub dialer: Dialer,
    /// Gets the one connection that the guest makes.
    pub accepted: oneshot::Receiver<UnixStream>,
    /// Ends when the device no longer serves QEMU.
    pub ended: oneshot::Receiver<()>,
}

struct Shared {
    mux: Mutex<Mux>,
    wake: OwnedFd,
}

impl Shared {
    fn mux(&self) -> MutexGuard<'_, Mux> {
        // No code that holds the lock leaves the multiplexer in a half-done state.
        self.mux.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dialer {
    /// Starts connecting to a port of the guest; does not wait for it. If the guest refuses, the
    /// socket ends.
    pub fn dial(&self, port: u32) -> io::Result<UnixStream> {
        let socket = self.0.mux().dial(port)?;
        rustix::io::write(&self.0.wake, &1u64.to_ne_bytes())?;
        Ok(socket)
    }
}

impl Vsock {
    /// Starts the device's threads, serving whoever has connected to `listener`, which must
    /// already have a connection waiting. The guest can connect once, to `port`.
    ///
    /// # Errors
    /// If the host lacks descriptors or threads.
    pub fn start(listener: UnixListener, port: u32) -> io::Result<Self> {
        let (accept, accepted) = oneshot::channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let mux = Mux::new(GUEST_CID, Listener { port, accepted: accept }, wake.as_fd())?;
        let shared = Arc::new(Shared { mux: Mutex::new(mux), wake });
        let guest = Mutex::new(Guest { memory: None, buffer: vec![0; MAX_PAYLOAD] });
        let backend = Arc::new(Backend { shared: shared.clone(), guest });

        let no_memory = Memory::new(GuestMemoryMmap::new());
        let mut daemon = VhostUserDaemon::new("vsock".to_owned(), backend, no_memory)
            .map_err(|error| io::Error::other(error.to_string()))?;
        for handler in daemon.get_epoll_handlers() {
            let poll = shared.mux().poll_fd().as_raw_fd();
            handler.register_listener(poll, EventSet::IN, u64::from(SOCKETS))?;
        }
        let mut listener = VhostListener::from(listener);
        daemon.start(&mut listener).map_err(|error| io::Error::other(error.to_string()))?;

        let (serving, ended) = oneshot::channel();
        thread::Builder::new().name("vsock-end".to_owned()).stack_size(64 << 10).spawn(
            move || {
                // QEMU hanging up is how it always ends; whoever watches `ended` knows why.
                if let Err(error) = daemon.wait() {
                    tracing::debug!(%error, "the vsock device stops");
                }
                drop(serving);
            },
        )?;
        Ok(Self { dialer: Dialer(shared), accepted, ended })
    }
}

struct Backend {
    shared: Arc<Shared>,
    guest: Mutex<Guest>,
}

struct Guest {
    /// `None` until QEMU has shared it.
    memory: Option<Memory>,
    /// Holds a payload on its way; here so that it needn't be allocated for each event.
    buffer: Vec<u8>,
}

impl Backend {
    /// Takes packets from the guest until there are none, or none can be taken.
    fn take_packets(&self, mux: &mut Mux, memory: &Memory, vring: &Vring, buffer: &mut [u8]) {
        let memory = memory.memory();
        let mut vring = vring.get_mut();
        let mut used = false;
        while mux.accepts_packets() {
            let Some(chain) = vring.get_queue_mut().pop_descriptor_chain(memory.clone()) else {
                break;
            };
            let head = chain.head_index();
            if let Ok(mut reader) = chain.reader(&memory) {
                let mut header = [0; Header::SIZE];
                if reader.read_exact(&mut header).is_ok() {
                    let header = Header::from_bytes(&header);
                    let payload = buffer.get_mut(..header.len as usize);
                    if let Some(payload) = payload
                        && reader.read_exact(payload).is_ok()
                    {
                        mux.receive(&header, payload);
                    }
                }
            }
            used |= vring.add_used(head, 0).is_ok();
        }
        if used {
            notify(vring.signal_used_queue());
        }
    }

    /// Gives the guest packets until there are none, or it has no buffers for them.
    fn give_packets(&self, mux: &mut Mux, memory: &Memory, vring: &Vring, buffer: &mut [u8]) {
        let memory = memory.memory();
        let mut vring = vring.get_mut();
        let mut used = false;
        while mux.has_packets() {
            let Some(chain) = vring.get_queue_mut().pop_descriptor_chain(memory.clone()) else {
                break;
            };
            let head = chain.head_index();
            let mut written = 0;
            if let Ok(mut writer) = chain.writer(&memory)
                && let Some(space) = writer.available_bytes().checked_sub(Header::SIZE)
            {
                let space = space.min(buffer.len());
                let Some(header) = mux.next_packet(&mut buffer[..space]) else {
                    // Nothing to send after all: the buffer is for the next packet.
                    vring.get_queue_mut().go_to_previous_position();
                    break;
                };
                let payload = &buffer[..header.len as usize];
                let whole =
                    writer.write_all(&header.to_bytes()).and_then(|()| writer.write_all(payload));
                if whole.is_ok() {
                    written = (Header::SIZE + payload.len()) as u32;
                }
            }
            used |= vring.add_used(head, written).is_ok();
        }
        if used {
            notify(vring.signal_used_queue());
        }
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = GUEST_CID.to_le_bytes();
        let mut answer: Vec<u8> =
            config.into_iter().skip(offset as usize).take(size as usize).collect();
        // QEMU asks for no more than there is; anything else gets zeros, but not without bound.
        answer.resize((size as usize).min(256), 0);
        answer
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner).memory = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(
        &self,
        event: u16,
        _readiness: EventSet,
        vrings: &[Vring],
        _thread: usize,
    ) -> io::Result<()> {
        let mut guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
        let Guest { memory, buffer } = &mut *guest;
        let mut mux = self.shared.mux();
        if event == SOCKETS && mux.poll()? {
            // Emptying it fails only if it is empty.
            let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        }
        let Some(memory) = memory else { return Ok(()) };
        let (to_guest, to_host) = (&vrings[usize::from(TO_GUEST)], &vrings[usize::from(TO_HOST)]);
        loop {
            if in_use(to_host) {
                self.take_packets(&mut mux, memory, to_host, buffer);
            }
            // Refusals and credit leave room for more packets from the guest.
            let full = !mux.accepts_packets();
            if in_use(to_guest) {
                self.give_packets(&mut mux, memory, to_guest, buffer);
            }
            if !full || !mux.accepts_packets() {
                return Ok(());
            }
        }
    }
}

fn in_use(vring: &Vring) -> bool {
    let vring = vring.get_ref();
    vring.is_enabled() && vring.get_queue().ready()
}

/// The guest's interrupt: an event that only fails if nobody is there to be told.
fn notify(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "cannot notify the guest");
    }
}
