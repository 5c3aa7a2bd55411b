/** The types of QEMU's block exports that commands take and answer. @see QEMU, qapi/block-export.json, qapi/sockets.json */
import { bool, enumeration, size, str, struct, uint16, uint32 } from "./qapi.js";
import type { Members, QapiStruct, QapiType, QapiUnion } from "./qapi.js";

const inet = struct("InetSocketAddress", {
  host: str,
  port: str,
  "numeric?": bool,
  "to?": uint16,
  "ipv4?": bool,
  "ipv6?": bool,
  "keep-alive?": bool,
  "mptcp?": bool,
});
const unix = struct("UnixSocketAddress", { path: str, "abstract?": bool, "tight?": bool });
const vsock = struct("VsockSocketAddress", { cid: str, port: str });
const fd = struct("String", { str });
const KINDS = { inet, unix, vsock, fd } as const;
const kind = enumeration("SocketAddressType", ...Object.keys(KINDS));

/** As `nbd-server-start` takes it: nested. */
const socketAddressLegacy: QapiUnion = {
  kind: "union",
  name: "SocketAddressLegacy",
  base: { type: kind },
  tag: "type",
  variants: Object.fromEntries(
    Object.entries(KINDS).map(([name, data]) => [name, struct(`${data.name}Wrapper`, { data })]),
  ),
};

/** As everything else takes it: flat. */
const socketAddress: QapiUnion = {
  kind: "union",
  name: "SocketAddress",
  base: { type: kind },
  tag: "type",
  variants: KINDS,
};

const nbdBase: Members = { "name?": str, "description?": str };
const names: QapiType = { kind: "list", of: str };

const exportType = enumeration("BlockExportType", "nbd", "vhost-user-blk", "fuse");

/** QEMU plans the last two, and this server has them. */
const removeMode = enumeration("BlockExportRemoveMode", "safe", "hard", "hide", "soft");

export const NbdServerStart = struct("nbd-server-start-arg", {
  addr: socketAddressLegacy,
  "tls-creds?": str,
  "tls-authz?": str,
  "max-connections?": uint32,
});

export const NbdServerAdd = struct("NbdServerAddOptions", {
  ...nbdBase,
  device: str,
  "writable?": bool,
  "bitmap?": str,
});

export const NbdServerRemove = struct("nbd-server-remove-arg", { name: str, "mode?": removeMode });

export const BlockExportAdd: QapiUnion = {
  kind: "union",
  name: "BlockExportOptions",
  base: {
    type: exportType,
    id: str,
    "fixed-iothread?": bool,
    "iothread?": str,
    "node-name": str,
    "writable?": bool,
    "writethrough?": bool,
  },
  tag: "type",
  variants: {
    nbd: struct("BlockExportOptionsNbd", {
      ...nbdBase,
      "bitmaps?": names,
      "allocation-depth?": bool,
    }),
    "vhost-user-blk": struct("BlockExportOptionsVhostUserBlk", {
      addr: socketAddress,
      "logical-block-size?": size,
      "num-queues?": uint16,
    }),
    fuse: struct("BlockExportOptionsFuse", {
      mountpoint: str,
      "growable?": bool,
      "allow-other?": enumeration("FuseExportAllowOther", "off", "on", "auto"),
    }),
  },
};

export const BlockExportDel = struct("block-export-del-arg", { id: str, "mode?": removeMode });

export const Capabilities = struct("qmp_capabilities-arg", {
  "enable?": { kind: "list", of: enumeration("QMPCapability") },
});

export const Nothing: QapiStruct = struct("q_empty", {});

export const BlockExportInfo = struct("BlockExportInfo", {
  id: str,
  type: exportType,
  "node-name": str,
  "shutting-down": bool,
});

export const ExportDeleted = struct("BLOCK_EXPORT_DELETED-arg", { id: str });

const triple = struct("VersionTriple", { major: uint32, minor: uint32, micro: uint32 });
export const VersionInfo = struct("VersionInfo", { qemu: triple, package: str });
export const CommandInfo = struct("CommandInfo", { name: str });
