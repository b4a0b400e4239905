-- Takes apart in Wireshark and tshark what `pktxpmgr --pcap` and `pktfleet try --pcap` write:
--
--     wireshark -X lua_script:packetlab.lua messages.pcapng
--     tshark -X lua_script:packetlab.lua -r messages.pcapng -Y 'pktlab.session == 3' -V
--
-- What stands before each message is in operating.md "Messages in files", the messages are in spec/protocol.md 1.4.

local pktlab = Proto("pktlab", "PacketLab")

local KINDS = { [0] = "message", [1] = "begin", [2] = "end", [3] = "missing" }
local SENDERS = { [0] = "endpoint", [1] = "mlet" }
local FAMILIES = { [4] = "IPv4", [6] = "IPv6" }
local RAW, TCP, UDP = 0x00, 0x06, 0x11
local PROTOCOLS = { [RAW] = "raw", [TCP] = "TCP", [UDP] = "UDP" }
local CHANGES =
    { [0] = "established", [1] = "reset", [2] = "timed out", [3] = "closed by the peer", [0xff] = "unknown" }
local COMMANDS = { [1] = "shut down writing" }
local TYPES = {
    [0x20] = "CDATA", [0x21] = "START", [0x22] = "END", [0x23] = "YIELD", [0x24] = "CONT", [0x28] = "MREAD",
    [0x29] = "MWRITE", [0x2a] = "NOPEN", [0x2b] = "NCLOSE", [0x2c] = "NSEND", [0x2d] = "NCAP", [0x2e] = "NCTL",
    [0x30] = "XCERT", [0x31] = "XPUB", [0x38] = "XSUB", [0x40] = "RESULT", [0x41] = "MDATA", [0x60] = "NTAG",
    [0x61] = "NSTAT", [0x62] = "NDATA", [0x63] = "NDROP", [0x64] = "NBLOCK", [0x65] = "LINFO", [0x68] = "SUSPD",
    [0x69] = "RESUMD", [0x70] = "XNOTIFY", [0x80] = "XREG",
}
local STATUSES = {
    [0x00] = "SUCCESS", [0x10] = "ECTLBADMSG", [0x11] = "ECTLNOTSUP", [0x12] = "ECTLMONREJ", [0x13] = "ECTLMONUKN",
    [0x20] = "ECRTBADHDAT", [0x21] = "ECRTNOHDAT", [0x22] = "ECRTBADFRM", [0x23] = "ECRTNOSPACE",
    [0x24] = "ECRTBADHINT", [0x30] = "ESYSNOBUFS", [0x31] = "ESYSNOPERM", [0x32] = "ESKTINUSE",
    [0x33] = "ESKTNOTOPEN", [0x34] = "ESKTNOPRFAM", [0x35] = "ESKTNOPROTO", [0x36] = "ESKTNOADDR",
    [0x37] = "ESKTNOMATCH", [0x38] = "ESKTBADFILT", [0x39] = "ESKTPKTDENY", [0x3a] = "ESKTOPNDENY",
    [0x40] = "ETCPNOPORT", [0x41] = "EPKTNOTSENT", [0x42] = "EUDPNOPORT", [0x43] = "EPKTTRUNC", [0x44] = "ENORES",
    [0x48] = "EMEMBADADR", [0x50] = "EPUBBADCHL", [0x51] = "EPUBBADCHN", [0x52] = "EPUBBADADDR",
    [0x53] = "EPUBBADPR", [0x54] = "EPUBBADXD", [0x60] = "ESUBBADCHL", [0x61] = "ESUBBADCHN", [0x62] = "ESUBBADDA",
    [0xffff] = "EUNKFAULT",
}

local fields = {
    version = ProtoField.uint8("pktlab.version", "Version"),
    kind = ProtoField.uint8("pktlab.kind", "Kind", base.DEC, KINDS),
    from = ProtoField.uint8("pktlab.from", "From", base.DEC, SENDERS),
    cut = ProtoField.bool("pktlab.cut", "The rest never came", 8, nil, 0x01),
    session = ProtoField.uint64("pktlab.session", "Session"),
    found = ProtoField.string("pktlab.mlet_finds", "The mlet finds"),
    missing = ProtoField.uint64("pktlab.missing", "Messages that are missing here"),
    type = ProtoField.uint8("pktlab.type", "Type", base.HEX, TYPES),
    len = ProtoField.uint24("pktlab.len", "Payload length", base.DEC),
    status = ProtoField.uint16("pktlab.status", "Status", base.HEX, STATUSES),
    monitor = ProtoField.uint16("pktlab.monitor", "Monitor"),
    monitor_code = ProtoField.uint16("pktlab.monitor_code", "The monitor's code"),
    hint_len = ProtoField.uint8("pktlab.hint_len", "Hint length"),
    hint = ProtoField.string("pktlab.hint", "Hint"),
    resume = ProtoField.absolute_time("pktlab.resume", "Come back at", base.UTC),
    address = ProtoField.uint32("pktlab.address", "Memory address", base.HEX),
    read_len = ProtoField.uint16("pktlab.read_len", "Bytes to read"),
    socket = ProtoField.uint8("pktlab.socket", "Socket"),
    family = ProtoField.uint8("pktlab.family", "Family", base.DEC, FAMILIES),
    protocol = ProtoField.uint8("pktlab.protocol", "Protocol", base.HEX, PROTOCOLS),
    buffer_len = ProtoField.uint32("pktlab.buffer_len", "Receive buffer length"),
    local_ipv4 = ProtoField.ipv4("pktlab.local", "Local address"),
    local_ipv6 = ProtoField.ipv6("pktlab.local_ipv6", "Local address"),
    local_port = ProtoField.uint16("pktlab.local_port", "Local port"),
    remote_ipv4 = ProtoField.ipv4("pktlab.remote", "Remote address"),
    remote_ipv6 = ProtoField.ipv6("pktlab.remote_ipv6", "Remote address"),
    remote_port = ProtoField.uint16("pktlab.remote_port", "Remote port"),
    time = ProtoField.absolute_time("pktlab.time", "Time", base.UTC),
    at_once = ProtoField.uint64("pktlab.at_once", "Time: at once"),
    never = ProtoField.uint64("pktlab.never", "Time: never", base.HEX),
    last = ProtoField.absolute_time("pktlab.last", "Last time", base.UTC),
    tag = ProtoField.uint16("pktlab.tag", "Tag"),
    command = ProtoField.uint8("pktlab.command", "Command", base.DEC, COMMANDS),
    change = ProtoField.uint8("pktlab.change", "Change", base.DEC, CHANGES),
    units = ProtoField.uint32("pktlab.units", "Packets dropped"),
    dropped_len = ProtoField.uint32("pktlab.dropped_len", "Bytes dropped"),
    part_len = ProtoField.uint32("pktlab.part_len", "Length of a part"),
    name = ProtoField.string("pktlab.name", "Name"),
    auxiliary = ProtoField.bytes("pktlab.auxiliary", "Auxiliary bytes"),
    info = ProtoField.string("pktlab.info", "Text"),
    certificate = ProtoField.bytes("pktlab.certificate", "Certificate"),
    channel_len = ProtoField.uint8("pktlab.channel_len", "Channel length"),
    channel = ProtoField.bytes("pktlab.channel", "Channel"),
    operator_key = ProtoField.bytes("pktlab.operator_key", "Key of the endpoint operator"),
    text = ProtoField.string("pktlab.text", "Descriptor or attributes"),
    snikey = ProtoField.string("pktlab.snikey", "Snikey"),
    filter = ProtoField.bytes("pktlab.filter", "Filter"),
    data = ProtoField.bytes("pktlab.data", "Data"),
}
for _, field in pairs(fields) do
    table.insert(pktlab.fields, field)
end

local malformed = ProtoExpert.new("pktlab.malformed", "Malformed message", expert.group.MALFORMED, expert.severity.ERROR)
pktlab.experts = { malformed }

-- Reads a payload from its front. What is not there is an error, which the message is shown with.
local Reader = {}
Reader.__index = Reader

function Reader.take(self, len)
    if len > self.rest:len() then
        error({ pktlab = "too short" })
    end
    local range = self.rest(0, len)
    self.rest = len < self.rest:len() and self.rest(len):tvb() or ByteArray.new():tvb("end")
    return range
end

function Reader.add(self, field, len)
    local range = self:take(len)
    self.tree:add(field, range)
    return range
end

function Reader.remaining(self, field)
    if self.rest:len() > 0 then
        return self:add(field, self.rest:len())
    end
end

-- Nanoseconds since 1970, of which 0 is at once and the last one never.
function Reader.time(self, field)
    local range = self:take(8)
    local ticks = range:uint64()
    if ticks == UInt64(0) then
        self.tree:add(fields.at_once, range)
    elseif ticks == UInt64.max() then
        self.tree:add(fields.never, range)
    else
        local second = UInt64(1000000000)
        local seconds, rest = ticks / second, ticks % second
        self.tree:add(field, range, NSTime.new(seconds:tonumber(), rest:tonumber()))
    end
end

function Reader.sock(self)
    self:add(fields.socket, 1)
    local family, protocol = self:add(fields.family, 1):uint(), self:add(fields.protocol, 1):uint()
    if not FAMILIES[family] or not PROTOCOLS[protocol] then
        error({ pktlab = "no socket" })
    end
    return family, protocol
end

function Reader.ip(self, family, side)
    if family == 4 then
        self:add(fields[side .. "_ipv4"], 4)
    else
        self:add(fields[side .. "_ipv6"], 16)
    end
end

function Reader.ip_and_port(self, family, side)
    self:ip(family, side)
    self:add(fields[side .. "_port"], 2)
end

-- What NSEND and NDATA carry; a whole packet is taken apart by Wireshark itself.
function Reader.packet(self, family, protocol)
    if protocol == UDP then
        self:ip_and_port(family, "remote")
    end
    local data = self:remaining(fields.data)
    if data and protocol == RAW and not self.is_cut then
        -- The line of the packet stays that of the message.
        local pinfo = self.pinfo
        local src, dst, info = pinfo.src, pinfo.dst, tostring(pinfo.cols.info)
        local ip = Dissector.get(family == 4 and "ip" or "ipv6")
        -- A filter may have kept the front of a packet alone: what Wireshark misses it says itself, beside what is there.
        pcall(ip.call, ip, data:tvb(), pinfo, self.tree)
        pinfo.src, pinfo.dst, pinfo.cols.info, pinfo.cols.protocol = src, dst, info, "PacketLab"
    end
end

function Reader.channels(self)
    while true do
        local len = self:add(fields.channel_len, 1):uint()
        if len == 0 then
            return
        end
        self:add(fields.channel, len)
    end
end

local PAYLOADS = {
    CDATA = function(reader)
        reader:add(fields.hint, reader:add(fields.hint_len, 1):uint())
        reader:remaining(fields.data)
    end,
    YIELD = function(reader) reader:time(fields.resume) end,
    MREAD = function(reader)
        reader:add(fields.address, 4)
        reader:add(fields.read_len, 2)
    end,
    MWRITE = function(reader)
        reader:add(fields.address, 4)
        reader:remaining(fields.data)
    end,
    NOPEN = function(reader)
        local family, protocol = reader:sock()
        reader:add(fields.buffer_len, 4)
        if protocol == RAW then
            return reader:ip(family, "local")
        end
        reader:ip_and_port(family, "local")
        if protocol == TCP and reader.rest:len() > 0 then
            reader:ip_and_port(family, "remote")
        end
    end,
    NCLOSE = function(reader) reader:add(fields.socket, 1) end,
    NSEND = function(reader)
        local family, protocol = reader:sock()
        reader:time(fields.time)
        reader:add(fields.tag, 2)
        reader:packet(family, protocol)
    end,
    NCAP = function(reader)
        reader:sock()
        reader:time(fields.time)
        reader:remaining(fields.filter)
    end,
    NCTL = function(reader)
        reader:sock()
        reader:time(fields.time)
        reader:add(fields.command, 1)
        reader:remaining(fields.data)
    end,
    XCERT = function(reader) reader:remaining(fields.certificate) end,
    XPUB = function(reader)
        reader:channels()
        reader:add(fields.operator_key, 32)
        reader:remaining(fields.text)
    end,
    RESULT = function(reader)
        if reader.rest:len() == 0 then
            return
        end
        local status = reader:add(fields.status, 2):uint()
        if status == 0x12 or status == 0x13 then
            reader:add(fields.monitor, 2)
        end
        if status == 0x12 then
            reader:add(fields.monitor_code, 2)
        end
        reader:remaining(fields.data)
    end,
    NTAG = function(reader)
        reader:add(fields.socket, 1)
        reader:add(fields.tag, 2)
        reader:time(fields.time)
        if reader.rest:len() > 0 then
            reader:add(fields.status, 2)
        end
    end,
    NSTAT = function(reader)
        local family = reader:sock()
        reader:time(fields.time)
        if reader.rest:len() == 1 then
            reader:add(fields.change, 1)
        else
            reader:ip_and_port(family, "remote")
        end
    end,
    NDATA = function(reader)
        local family, protocol = reader:sock()
        reader:time(fields.time)
        reader:packet(family, protocol)
    end,
    NDROP = function(reader)
        reader:sock()
        reader:time(fields.time)
        reader:time(fields.last)
        reader:add(fields.units, 4)
        reader:add(fields.dropped_len, 4)
    end,
    NBLOCK = function(reader)
        reader:sock()
        reader:add(fields.monitor_code, 2)
        reader:time(fields.time)
    end,
    LINFO = function(reader)
        local lens = {}
        for part = 1, 3 do
            lens[part] = reader:add(fields.part_len, 4):uint()
        end
        for part, field in ipairs({ fields.name, fields.auxiliary, fields.info }) do
            if lens[part] > 0 then
                reader:add(field, lens[part])
            end
        end
    end,
    XNOTIFY = function(reader)
        reader:add(fields.channel, reader:add(fields.channel_len, 1):uint())
        reader:remaining(fields.text)
    end,
    XREG = function(reader) reader:remaining(fields.snikey) end,
}
PAYLOADS.MDATA = PAYLOADS.MWRITE
PAYLOADS.XSUB = PAYLOADS.XPUB

local function message(buffer, pinfo, tree, is_cut)
    if buffer:len() < 4 then
        pinfo.cols.info:append("a header that never came whole")
        return
    end
    local number, len = buffer(0, 1):uint(), buffer(1, 3):uint()
    local name = TYPES[number] or string.format("type 0x%02x", number)
    pinfo.cols.info:append(string.format("%s, %d bytes", name, 4 + len))
    local branch = tree:add(pktlab, buffer(), string.format("%s, %d bytes", name, 4 + len))
    branch:add(fields.type, buffer(0, 1))
    branch:add(fields.len, buffer(1, 3))
    is_cut = is_cut or buffer:len() < 4 + len
    if buffer:len() == 4 and is_cut then
        return
    end
    local rest = buffer:len() > 4 and buffer(4):tvb() or ByteArray.new():tvb("end")
    local reader = setmetatable({ rest = rest, tree = branch, pinfo = pinfo, is_cut = is_cut }, Reader)
    local is_read, problem = pcall(PAYLOADS[name] or function() end, reader)
    if not is_read and type(problem) ~= "table" then
        error(problem)
    end
    if not TYPES[number] then
        reader:remaining(fields.data)
    elseif not is_cut and (not is_read or reader.rest:len() > 0) then
        reader:remaining(fields.data)
        branch:add_proto_expert_info(malformed)
        pinfo.cols.info:append(", malformed")
    end
end

function pktlab.dissector(buffer, pinfo, tree)
    pinfo.cols.protocol = "PacketLab"
    if buffer:len() < 12 then
        tree:add(pktlab, buffer()):add_proto_expert_info(malformed)
        pinfo.cols.info = "damaged: what stands before each message is not all there"
        return
    end
    local branch = tree:add(pktlab, buffer(0, 12))
    branch:add(fields.version, buffer(0, 1))
    branch:add(fields.kind, buffer(1, 1))
    branch:add(fields.from, buffer(2, 1))
    branch:add(fields.cut, buffer(3, 1))
    branch:add(fields.session, buffer(4, 8))
    local kind, from = buffer(1, 1):uint(), SENDERS[buffer(2, 1):uint()] or "?"
    pinfo.cols.info = string.format("session %s: ", buffer(4, 8):uint64())
    local body = buffer:len() > 12 and buffer(12):tvb()
    if kind == 0 and body then
        message(body, pinfo, tree, buffer(3, 1):uint() == 1)
    elseif kind == 1 then
        pinfo.cols.info:append("begins")
        for line in (body and body():string() or ""):gmatch("[^\n]+") do
            branch:add(fields.found, body(), line)
        end
    elseif kind == 2 then
        pinfo.cols.info:append("the " .. from .. " ends")
    elseif kind == 3 and body then
        pinfo.cols.info:append("messages are missing")
        if body:len() < 8 then
            branch:add_proto_expert_info(malformed)
        else
            branch:add(fields.missing, body(0, 8))
        end
    end
    pinfo.cols.src, pinfo.cols.dst = from, from == "mlet" and "endpoint" or "mlet"
end

DissectorTable.get("wtap_encap"):add(wtap.USER0, pktlab)
