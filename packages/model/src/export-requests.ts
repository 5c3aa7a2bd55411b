/**
 * What is asked of an export: a volume that is served on the storage host itself, as NBD, as a file, or to a
 * virtual machine. None of it is in the reference.
 */
import * as v from "valibot";

/** The ways in which a volume is served; each is an exporter that the service has to have. */
export const ExportType = v.picklist(["nbd", "fuse", "vhost-user-blk"]);
export type ExportType = v.InferOutput<typeof ExportType>;

/** As QEMU takes ids, so that they can be handed on as they are. */
export const EXPORT_ID = /^[A-Za-z][A-Za-z0-9._-]{0,63}$/;

const ExportID = v.pipe(
  v.string(),
  v.regex(
    EXPORT_ID,
    "must begin with a letter, have letters, digits, dots, _ and - only, and at most 64 of them",
  ),
);

const PRINTABLE = /^[\x20-\x7e]{1,200}$/;
const PlainText = v.pipe(
  v.string(),
  v.regex(PRINTABLE, "must have 1 to 200 printable ASCII characters"),
);

const Path = v.pipe(
  v.string(),
  v.maxLength(4096, "must have at most 4096 characters"),
  v.check((path) => path.startsWith("/"), "must be an absolute path"),
  v.check((path) => !/\p{Cc}/u.test(path), "must have no control characters"),
);

/** A rate, or the peak above it. 0: without limit. */
const Rate = v.optional(
  v.pipe(
    v.number(),
    v.integer("must be a whole number"),
    v.minValue(0, "must not be negative"),
    v.maxValue(1e15, "is too large"),
  ),
  0,
);

/**
 * Bytes and requests a second that may go through an export. What is left out or 0 has no limit. A total and its
 * parts exclude each other; a peak (`…Max`) needs its rate and is not below it.
 */
export const Throttle = v.pipe(
  v.strictObject({
    bpsTotal: Rate,
    bpsRead: Rate,
    bpsWrite: Rate,
    iopsTotal: Rate,
    iopsRead: Rate,
    iopsWrite: Rate,
    bpsTotalMax: Rate,
    bpsReadMax: Rate,
    bpsWriteMax: Rate,
    iopsTotalMax: Rate,
    iopsReadMax: Rate,
    iopsWriteMax: Rate,
  }),
  v.check(
    (t) =>
      (t.bpsTotal === 0 || (t.bpsRead === 0 && t.bpsWrite === 0)) &&
      (t.iopsTotal === 0 || (t.iopsRead === 0 && t.iopsWrite === 0)),
    "must not have a total together with a limit for reads or writes",
  ),
  v.check(
    (t) =>
      (["bpsTotal", "bpsRead", "bpsWrite", "iopsTotal", "iopsRead", "iopsWrite"] as const).every(
        (name) => t[`${name}Max`] === 0 || (t[name] > 0 && t[`${name}Max`] >= t[name]),
      ),
    "must have a rate for every peak, and no peak below its rate",
  ),
);
export type Throttle = v.InferOutput<typeof Throttle>;

const MaxConnections = v.pipe(
  v.number(),
  v.integer("must be a whole number"),
  v.minValue(0, "must not be negative"),
  v.maxValue(4096, "must be at most 4096"),
);

/**
 * Who may connect over TCP: with TLS the subject's distinguished name as RFC 4514 writes it (`CN=host-b,O=site`),
 * its common name or a DNS name of the certificate, or the identity of a pre-shared key; without TLS addresses.
 * Left out: whoever has a certificate or key that the server trusts; without TLS the server's own host alone.
 */
const Allow = v.pipe(v.array(PlainText), v.maxLength(256, "must have at most 256 entries"));

export const ExportAddRequest = v.strictObject({
  volumeID: v.pipe(v.string(), v.minLength(1, "must not be empty"), v.maxLength(1024)),
  type: ExportType,
  /** Unique in the service. Chosen by the server when it is left out. */
  id: v.optional(ExportID),
  /** Default false. A volume that is not shareable has one writer, or any number of readers. */
  writable: v.optional(v.boolean()),
  /**
   * Every write is on the disk before it is answered. Default: for vhost-user-blk, and for fuse over a qcow2, whose users
   * would not learn of what was lost with a daemon.
   */
  writethrough: v.optional(v.boolean()),
  description: v.optional(
    v.pipe(
      v.string(),
      v.check((text) => new TextEncoder().encode(text).length <= 4096, "has more than 4096 bytes"),
      v.check((text) => !text.includes("\0"), "must have no NUL"),
    ),
  ),
  throttle: v.optional(Throttle),

  /** nbd: what clients ask for. Default: a name that is never given again. */
  name: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^[A-Za-z0-9._-]{1,200}$/, "must be made of letters, digits, . _ -"),
    ),
  ),
  /** nbd: `tcp` (default), through the server's gate with its TLS; or `unix`, on this host alone. */
  transport: v.optional(v.picklist(["tcp", "unix"])),
  /** nbd over TCP: how many may be connected at a time; 0: any number. */
  maxConnections: v.optional(MaxConnections),
  allow: v.optional(Allow),
  /** nbd: dirty bitmaps that are shown as `qemu:dirty-bitmap:NAME`. */
  bitmaps: v.optional(v.pipe(v.array(PlainText), v.maxLength(64, "must have at most 64 entries"))),
  /** nbd: whether `qemu:allocation-depth` is shown. */
  allocationDepth: v.optional(v.boolean()),

  /**
   * Where the socket or the file stands: in the exporter's own folder, and free; a file may be there if it is empty and
   * of the server's user, and then stays. Default: named after the id. Not for nbd over TCP.
   */
  path: v.optional(Path),

  /** fuse: whether writing behind the end makes the volume larger. */
  growable: v.optional(v.boolean()),
  /** fuse: whether other users of this host may open the file; `auto` (default): if FUSE permits it. */
  allowOther: v.optional(v.picklist(["off", "on", "auto"])),

  /** vhost-user-blk. Default 1. */
  numQueues: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(64))),
  /** vhost-user-blk: bytes. Default 512. */
  logicalBlockSize: v.optional(v.picklist([512, 1024, 2048, 4096])),
});
export type ExportAddRequest = v.InferOutput<typeof ExportAddRequest>;

/** What may change while an export is in use. What is left out stays. */
export const ExportUpdateRequest = v.strictObject({
  /** All limits anew. */
  throttle: v.optional(Throttle),
  /** Of connections to come. */
  maxConnections: v.optional(MaxConnections),
  /** Of connections to come; who is connected stays. */
  allow: v.optional(Allow),
});
export type ExportUpdateRequest = v.InferOutput<typeof ExportUpdateRequest>;

/**
 * How an export goes. `safe` (default): only if nobody uses it · `hard`: now, whoever uses it · `hide`: gone for new
 * clients, and for all once the last one has left · `soft`: as `hide`, and requests of clients that are there
 * fail with ESHUTDOWN.
 */
export const ExportRemoveMode = v.picklist(["safe", "hard", "hide", "soft"]);
export type ExportRemoveMode = v.InferOutput<typeof ExportRemoveMode>;
