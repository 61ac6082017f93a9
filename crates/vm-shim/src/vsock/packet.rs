//! The header of a vsock packet (virtio specification 1.2, section 5.10.6).

/// The host's context id.
pub const HOST_CID: u64 = 2;

/// The most payload that one packet carries, in bytes; what Linux uses in both directions.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// `VIRTIO_VSOCK_TYPE_STREAM`: the only type of socket that this device offers.
pub const STREAM: u16 = 1;

/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender will receive no more data.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender will send no more data.
pub const SHUTDOWN_SEND: u32 = 2;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Asks for a connection.
    Request,
    /// Accepts a connection.
    Response,
    /// Refuses or ends a connection.
    Reset,
    /// Says which directions are finished; see [`SHUTDOWN_RECEIVE`] and [`SHUTDOWN_SEND`].
    Shutdown,
    /// Carries data.
    Data,
    /// Says how much the sender can receive.
    CreditUpdate,
    /// Asks for a [`Op::CreditUpdate`].
    CreditRequest,
}

impl Op {
    const ALL: [Self; 7] = [
        Self::Request,
        Self::Response,
        Self::Reset,
        Self::Shutdown,
        Self::Data,
        Self::CreditUpdate,
        Self::CreditRequest,
    ];

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.number() == number)
    }

    fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

/// `struct virtio_vsock_hdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who sends.
    pub src_cid: u64,
    /// Who receives.
    pub dst_cid: u64,
    /// The sender's port.
    pub src_port: u32,
    /// The receiver's port.
    pub dst_port: u32,
    /// Bytes of payload behind the header.
    pub len: u32,
    /// The type of socket: [`STREAM`], unless the guest is up to something.
    pub kind: u16,
    /// `None` for a number that the specification doesn't know.
    pub op: Option<Op>,
    /// For [`Op::Shutdown`].
    pub flags: u32,
    /// The size of the sender's receive buffer for this connection, in bytes.
    pub buf_alloc: u32,
    /// How many bytes the sender has taken out of that buffer so far, modulo 2³².
    pub fwd_cnt: u32,
}

impl Header {
    /// Bytes of a header.
    pub const SIZE: usize = 44;

    /// Reads a header. Every byte sequence is one.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self {
            src_cid: u64_at(0),
            dst_cid: u64_at(8),
            src_port: u32_at(16),
            dst_port: u32_at(20),
            len: u32_at(24),
            kind: u16_at(28),
            op: Op::from_number(u16_at(30)),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }

    /// The header as it goes over the wire.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.map_or(0, Op::number).to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let bytes: [u8; Header::SIZE] = std::array::from_fn(|n| match n {
            28 => 1,
            29 => 0,
            30 => 5,
            31 => 0,
            n => n as u8,
        });
        let header = Header::from_bytes(&bytes);
        assert_eq!(header.src_cid, 0x0706_0504_0302_0100);
        assert_eq!(header.dst_cid, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(header.src_port, 0x1312_1110);
        assert_eq!(header.dst_port, 0x1716_1514);
        assert_eq!(header.len, 0x1b1a_1918);
        assert_eq!((header.kind, header.op), (STREAM, Some(Op::Data)));
        assert_eq!(header.flags, 0x2322_2120);
        assert_eq!(header.buf_alloc, 0x2726_2524);
        assert_eq!(header.fwd_cnt, 0x2b2a_2928);
        assert_eq!(header.to_bytes(), bytes);
    }

    #[test]
    fn an_unknown_operation_is_none() {
        let mut bytes = [0; Header::SIZE];
        for number in [0, 8, 0xffff_u16] {
            bytes[30..32].copy_from_slice(&number.to_le_bytes());
            assert_eq!(Header::from_bytes(&bytes).op, None, "{number}");
        }
    }
}
