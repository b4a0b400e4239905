//! Payload layouts of spec/protocol.md 1.4, decoding and encoding side by side.
//!
//! Rules of both directions: a payload is used up exactly, except where the original ignores what
//! follows (RESULT, NCTL).

use super::message_type::MessageType;
use super::messages::Message;
use super::outcome::Outcome;
use super::payload_reader::PayloadReader;
use super::socket::{Family, Open, Packet, Protocol, Socket};
use super::state_change::StateChange;
use super::status::Status;
use crate::channel::{ChannelId, ChannelList};
use crate::name_value;
use crate::name_value::Dialect::{self, Attributes, Descriptor};
use crate::snikey;
use crate::time::Ticks;

/// `None` if the payload is malformed.
pub(super) fn decode(message_type: MessageType, payload: &[u8]) -> Option<Message<'_>> {
    let reader = &mut PayloadReader::new(payload);
    let message = match message_type {
        MessageType::CDATA => decode_cdata(reader)?,
        MessageType::START => Message::Start,
        MessageType::END => Message::End,
        MessageType::YIELD => Message::Yield { resume: reader.ticks()? },
        MessageType::CONT => Message::Cont,
        MessageType::MREAD => decode_mread(reader)?,
        MessageType::MWRITE => decode_mwrite(reader)?,
        MessageType::NOPEN => decode_nopen(reader)?,
        MessageType::NCLOSE => Message::Nclose { sktid: reader.u8()? },
        MessageType::NSEND => decode_nsend(reader)?,
        MessageType::NCAP => decode_ncap(reader)?,
        MessageType::NCTL => decode_nctl(reader)?,
        MessageType::XCERT => Message::Xcert { certificate: non_empty(reader.rest())? },
        MessageType::XPUB => decode_xpub(reader)?,
        MessageType::XSUB => decode_xsub(reader)?,
        MessageType::RESULT => Message::Result(Outcome::read(reader)?),
        MessageType::MDATA => Message::Mdata { address: reader.u32()?, data: reader.rest() },
        MessageType::NTAG => decode_ntag(reader)?,
        MessageType::NSTAT => decode_nstat(reader)?,
        MessageType::NDATA => decode_ndata(reader)?,
        MessageType::NDROP => decode_ndrop(reader)?,
        MessageType::NBLOCK => Message::Nblock {
            socket: Socket::read(reader)?,
            monitor_errid: reader.u16()?,
            time: reader.ticks()?,
        },
        MessageType::LINFO => decode_linfo(reader)?,
        MessageType::SUSPD => Message::Suspd,
        MessageType::RESUMD => Message::Resumd,
        MessageType::XNOTIFY => decode_xnotify(reader)?,
        MessageType::XREG => Message::Xreg { snikey: snikey::check(reader.rest()).ok()? },
        _ => return None,
    };
    reader.is_empty().then_some(message)
}

/// Appends the payload; the error is the rule that the message breaks.
pub(super) fn encode(message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    match message {
        Message::Start | Message::End | Message::Cont | Message::Suspd | Message::Resumd => {}
        Message::Cdata { hint, data } => encode_cdata(out, hint, data)?,
        Message::Yield { resume } => put(out, [&resume.0.to_be_bytes()]),
        Message::Mread { address, len } => encode_mread(out, *address, *len)?,
        Message::Mwrite { address, data } => encode_mwrite(out, *address, data)?,
        Message::Nopen { sktid, receive_buffer_len, open } => {
            put(out, [&open.socket(*sktid).encoded()[..], &receive_buffer_len.to_be_bytes()]);
            open.write(out)?;
        }
        Message::Nclose { sktid } => out.push(*sktid),
        Message::Nsend { sktid, time, tag, packet } => {
            let socket = packet.socket(*sktid).encoded();
            put(out, [&socket[..], &time.0.to_be_bytes(), &tag.to_be_bytes()]);
            packet.write(out);
        }
        Message::Ncap { socket, end, filter } => {
            rule(!filter.is_empty(), "a capture filter has at least one byte")?;
            put(out, [&socket.encoded(), &end.0.to_be_bytes(), *filter]);
        }
        Message::Nctl { sktid, family, time, command } => {
            encode_nctl(out, *sktid, *family, *time, *command);
        }
        Message::Xcert { certificate } => {
            rule(!certificate.is_empty(), "a certificate has at least one byte")?;
            put(out, [certificate]);
        }
        Message::Xpub { channels, operator_key, xdescr } => {
            put(out, [channels.encoded(), operator_key, text(Descriptor, xdescr)?]);
        }
        Message::Xsub { channels, operator_key, dattr } => {
            put(out, [channels.encoded(), operator_key, text(Attributes, dattr)?]);
        }
        Message::Result(outcome) => outcome.write(out)?,
        Message::Mdata { address, data } => put(out, [&address.to_be_bytes(), data]),
        Message::Ntag { sktid, tag, time, status } => {
            encode_ntag(out, *sktid, *tag, *time, *status)
        }
        Message::Nstat { sktid, time, change } => {
            put(out, [&change.socket(*sktid).encoded()[..], &time.0.to_be_bytes()]);
            change.write(out)?;
        }
        Message::Ndata { sktid, time, packet } => {
            put(out, [&packet.socket(*sktid).encoded()[..], &time.0.to_be_bytes()]);
            packet.write(out);
        }
        Message::Ndrop { socket, first, last, units, bytes } => {
            put(out, [&socket.encoded()[..], &first.0.to_be_bytes(), &last.0.to_be_bytes()]);
            put(out, [&units.to_be_bytes(), &bytes.to_be_bytes()]);
        }
        Message::Nblock { socket, monitor_errid, time } => {
            put(out, [&socket.encoded()[..], &monitor_errid.to_be_bytes(), &time.0.to_be_bytes()]);
        }
        Message::Linfo { name, auxiliary, info } => encode_linfo(out, [name, auxiliary, info])?,
        Message::Xnotify { channel, xdescr } => {
            put(out, [&[channel.len_byte()], channel.as_bytes(), text(Descriptor, xdescr)?]);
        }
        Message::Xreg { snikey } => {
            let snikey = snikey::check(snikey.as_bytes());
            put(out, [snikey.or(Err("a snikey is 1 to 63 characters of [0-9a-z]"))?.as_bytes()]);
        }
        Message::Raw { payload, .. } => put(out, [payload]),
    }
    Ok(())
}

fn decode_cdata<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let hint_len = reader.u8()?;
    Some(Message::Cdata { hint: reader.bytes(hint_len.into())?, data: reader.rest() })
}

fn encode_cdata(out: &mut Vec<u8>, hint: &[u8], data: &[u8]) -> Result<(), &'static str> {
    let hint_len = u8::try_from(hint.len()).or(Err("a hint has at most 255 bytes"))?;
    put(out, [&[hint_len], hint, data]);
    Ok(())
}

fn decode_mread<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let (address, len) = (reader.u32()?, reader.u16()?);
    (len > 0 && in_memory(address, len.into())).then_some(Message::Mread { address, len })
}

fn encode_mread(out: &mut Vec<u8>, address: u32, len: u16) -> Result<(), &'static str> {
    let fits = len > 0 && in_memory(address, len.into());
    rule(fits, "address plus length of a read, at least 1, is at most 0xffffffff")?;
    put(out, [&address.to_be_bytes()[..], &len.to_be_bytes()]);
    Ok(())
}

fn decode_mwrite<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let (address, data) = (reader.u32()?, reader.rest());
    in_memory(address, data.len()).then_some(Message::Mwrite { address, data })
}

fn encode_mwrite(out: &mut Vec<u8>, address: u32, data: &[u8]) -> Result<(), &'static str> {
    let fits = in_memory(address, data.len());
    rule(fits, "address plus length of a write is at most 0xffffffff")?;
    put(out, [&address.to_be_bytes(), data]);
    Ok(())
}

fn decode_nopen<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let (socket, receive_buffer_len) = (Socket::read(reader)?, reader.u32()?);
    let open = Open::read(reader, socket)?;
    Some(Message::Nopen { sktid: socket.sktid, receive_buffer_len, open })
}

fn decode_nsend<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let (socket, time, tag) = (Socket::read(reader)?, reader.ticks()?, reader.u16()?);
    Some(Message::Nsend { sktid: socket.sktid, time, tag, packet: Packet::read(reader, socket)? })
}

fn decode_ncap<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let (socket, end) = (Socket::read(reader)?, reader.ticks()?);
    Some(Message::Ncap { socket, end, filter: non_empty(reader.rest())? })
}

/// The original ignores what follows the command (2.1), so a longer NCTL is served as well.
fn decode_nctl<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let Socket { sktid, family, protocol: Protocol::Tcp } = Socket::read(reader)? else {
        return None;
    };
    let (time, command) = (reader.ticks()?, reader.u8()?);
    reader.rest();
    Some(Message::Nctl { sktid, family, time, command })
}

fn encode_nctl(out: &mut Vec<u8>, sktid: u8, family: Family, time: Ticks, command: u8) {
    let socket = Socket { sktid, family, protocol: Protocol::Tcp };
    put(out, [&socket.encoded()[..], &time.0.to_be_bytes(), &[command]]);
}

fn decode_xpub<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let (channels, rest) = ChannelList::decode_front(reader.rest()).ok()?;
    let (operator_key, xdescr) = rest.split_first_chunk()?;
    let xdescr = name_value::check(Descriptor, xdescr).ok()?;
    Some(Message::Xpub { channels, operator_key: *operator_key, xdescr })
}

fn decode_xsub<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let (channels, rest) = ChannelList::decode_front(reader.rest()).ok()?;
    let (operator_key, dattr) = rest.split_first_chunk()?;
    let dattr = name_value::check(Attributes, dattr).ok()?;
    Some(Message::Xsub { channels, operator_key: *operator_key, dattr })
}

/// An explicit status 0 is read, but not written (2.1).
fn decode_ntag<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let (sktid, tag, time) = (reader.u8()?, reader.u16()?, reader.ticks()?);
    let status = if reader.is_empty() { Status::SUCCESS } else { Status(reader.u16()?) };
    Some(Message::Ntag { sktid, tag, time, status })
}

fn encode_ntag(out: &mut Vec<u8>, sktid: u8, tag: u16, time: Ticks, status: Status) {
    put(out, [&[sktid][..], &tag.to_be_bytes(), &time.0.to_be_bytes()]);
    if status != Status::SUCCESS {
        put(out, [&status.0.to_be_bytes()]);
    }
}

fn decode_nstat<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let (socket, time) = (Socket::read(reader)?, reader.ticks()?);
    Some(Message::Nstat { sktid: socket.sktid, time, change: StateChange::read(reader, socket)? })
}

fn decode_ndata<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let (socket, time) = (Socket::read(reader)?, reader.ticks()?);
    Some(Message::Ndata { sktid: socket.sktid, time, packet: Packet::read(reader, socket)? })
}

fn decode_ndrop<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    Some(Message::Ndrop {
        socket: Socket::read(reader)?,
        first: reader.ticks()?,
        last: reader.ticks()?,
        units: reader.u32()?,
        bytes: reader.u32()?,
    })
}

/// Three lengths, then the three parts.
fn decode_linfo<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let [name_len, auxiliary_len, info_len] = [reader.u32()?, reader.u32()?, reader.u32()?];
    let mut part = |len: u32| reader.bytes(usize::try_from(len).ok()?);
    let (name, auxiliary, info) = (part(name_len)?, part(auxiliary_len)?, part(info_len)?);
    Some(Message::Linfo { name, auxiliary, info })
}

fn encode_linfo(out: &mut Vec<u8>, parts: [&[u8]; 3]) -> Result<(), &'static str> {
    for part in parts {
        let len = u32::try_from(part.len()).or(Err("a part has fewer than 2^32 bytes"))?;
        put(out, [&len.to_be_bytes()]);
    }
    put(out, parts);
    Ok(())
}

fn decode_xnotify<'a>(reader: &mut PayloadReader<'a>) -> Option<Message<'a>> {
    let id_len = reader.u8()?;
    let channel = ChannelId::new(reader.bytes(id_len.into())?).ok()?;
    let xdescr = name_value::check(Descriptor, reader.rest()).ok()?;
    Some(Message::Xnotify { channel, xdescr })
}

/// Whether an access stays within the endpoint's memory (spec/protocol.md 1.4, MREAD and MWRITE).
fn in_memory(address: u32, len: usize) -> bool {
    u32::try_from(len).is_ok_and(|len| address.checked_add(len).is_some())
}

fn non_empty(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

fn rule(kept: bool, rule: &'static str) -> Result<(), &'static str> {
    if kept { Ok(()) } else { Err(rule) }
}

fn text(dialect: Dialect, text: &str) -> Result<&[u8], &'static str> {
    name_value::check(dialect, text.as_bytes())
        .map(str::as_bytes)
        .or(Err("its text is not a well-formed list of `name=value;`"))
}

fn put<const N: usize>(out: &mut Vec<u8>, parts: [&[u8]; N]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}
