/** The options of `docker volume create -o KEY=VALUE`: what each means, and what is refused. */
import { gibOfBytes, MAX_SIZE_GIB, parseSize, StorageError } from "@libstorage/model";
import { checkMountOptions } from "../../executor/folder-mount.js";
import { MOUNT_OPTIONS } from "../../host/mount-requests.js";

export interface OptionSpec {
  /** The first one is the name under which it is kept; case, `-` and `_` do not count. */
  readonly names: readonly string[];
  readonly value: string;
  readonly about: string;
}

export const OPTIONS: Readonly<Record<string, OptionSpec>> = {
  size: {
    names: ["size"],
    value: "10",
    about: "GiB, or with a unit: 10G, 512MiB (rounded up to GiB)",
  },
  type: { names: ["type", "volumetype"], value: "TYPE", about: "the driver's kind of volume" },
  iops: { names: ["iops"], value: "NUMBER", about: "how fast it shall be" },
  zone: { names: ["availabilityzone", "zone"], value: "ZONE", about: "where it shall be" },
  encrypted: { names: ["encrypted"], value: "true", about: "whether its data are encrypted" },
  fstype: { names: ["fstype", "fs"], value: "ext4", about: "the file system of a block device" },
  mount: {
    names: [MOUNT_OPTIONS, "o"],
    value: "ro,noatime",
    about: "as for mount -o, at every mount",
  },
  share: {
    names: ["shareable", "share", "shared"],
    value: "true",
    about: "whether several hosts may have it at once",
  },
  from: { names: ["from"], value: "VOLUME", about: "a copy of this volume" },
  fromSnapshot: { names: ["fromsnapshot"], value: "SNAPSHOT", about: "the state of this snapshot" },
  adopt: {
    names: ["adopt"],
    value: "VOLUME",
    about: "this name stands for a volume that is there",
  },
  resize: { names: ["resize"], value: "VOLUME", about: "grow this volume to size=" },
  snapshot: { names: ["snapshot"], value: "VOLUME", about: "a snapshot of this volume" },
};

/** Whatever else the driver of the service shall get. */
const DRIVER_PREFIX = "opt.";

/** What stands before the equals sign of each option, for people. */
export function knownOptions(): string {
  const names = Object.values(OPTIONS).map(({ names: [first = "", ...more] }) =>
    more.length === 0 ? first : `${first} (${more.join(", ")})`,
  );
  return [...names, `${DRIVER_PREFIX}NAME`].join(", ");
}

export interface CreateOptions {
  /** GiB. */
  readonly size?: number;
  readonly type?: string;
  readonly iops?: number;
  readonly availabilityZone?: string;
  readonly encrypted?: boolean;
  readonly from?: string;
  readonly fromSnapshot?: string;
  /** What is done with a volume that is there. */
  readonly act?: { readonly kind: "adopt" | "resize" | "snapshot"; readonly volume: string };
  /** What becomes a field of the volume and has no member of its own. */
  readonly fields: Readonly<Record<string, string>>;
  /** All that was given, under the names by which it is kept. */
  readonly given: Readonly<Record<string, string>>;
}

const BY_NAME = new Map(
  Object.entries(OPTIONS).flatMap(([key, { names }]) => names.map((name) => [name, key] as const)),
);

function bad(option: string, text: string): StorageError {
  return new StorageError("invalid-argument", `the option ${option} ${text}`, { option });
}

/** What was given, by the keys of the table; `fields` for the driver. */
interface Sorted {
  readonly known: ReadonlyMap<string, string>;
  readonly driver: Readonly<Record<string, string>>;
}

function sorted(options: Readonly<Record<string, string>>): Sorted {
  const known = new Map<string, string>();
  const driver: Record<string, string> = {};
  // In an order of their own, because of two names of one option the first one of the table counts.
  for (const [given, text] of Object.entries(options)) {
    const lower = given.toLowerCase();
    if (lower.startsWith(DRIVER_PREFIX) && lower.length > DRIVER_PREFIX.length) {
      driver[lower.slice(DRIVER_PREFIX.length)] = text;
      continue;
    }
    const name = lower.replace(/[-_]/g, "");
    const key = BY_NAME.get(name);
    if (key === undefined) throw bad(`"${given}"`, `is not known; there are ${knownOptions()}`);
    const isFirst = OPTIONS[key]?.names[0] === name;
    const other = known.get(key);
    if (other === undefined || isFirst) known.set(key, text);
  }
  return { known, driver };
}

function readSize(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined || bytes < 1)
    throw bad("size", `must be a size such as 10 (GiB), 10G or 512MiB, not "${text}"`);
  const gib = gibOfBytes(bytes);
  if (gib > MAX_SIZE_GIB) throw bad("size", `must be at most ${MAX_SIZE_GIB} GiB, not "${text}"`);
  return gib;
}

function readCount(option: string, text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value))
    throw bad(option, `must be a whole number, not "${text}"`);
  return value;
}

/** An option without a value switches on. */
function readFlag(option: string, text: string): boolean {
  if (/^(?:|true|t|yes|on|1)$/i.test(text)) return true;
  if (/^(?:false|f|no|off|0)$/i.test(text)) return false;
  throw bad(option, `must be true or false, not "${text}"`);
}

const ACTS = ["adopt", "resize", "snapshot"] as const;

/** Things that exclude each other. */
function checkTogether(known: ReadonlyMap<string, string>): void {
  const sources = ["from", "fromSnapshot", ...ACTS].filter((key) => known.has(key));
  if (sources.length > 1) throw bad(sources.join(" and "), "cannot stand together");
  for (const key of ["from", "fromSnapshot", ...ACTS])
    if (known.get(key) === "") throw bad(key, "must name something");
  if (known.has("resize") && !known.has("size")) throw bad("resize", "needs size= beside it");
  const act = ACTS.find((key) => known.has(key));
  const more = [...known.keys()].filter((key) => key !== act && key !== "size");
  if (act !== undefined && more.length > 0)
    throw bad(act, `is about a volume that is there, so ${more.join(", ")} cannot be chosen`);
  if (act === "snapshot" && known.has("size")) throw bad("snapshot", "takes no size");
  const fixed = ["type", "iops", "zone", "encrypted"].filter((key) => known.has(key));
  if (known.has("from") && fixed.length > 0)
    throw bad("from", `makes a copy, which is as its source: ${fixed.join(", ")} cannot be chosen`);
  if (known.has("fromSnapshot") && known.has("encrypted"))
    throw bad(
      "fromSnapshot",
      "makes a volume that is encrypted as its source, so that cannot be chosen",
    );
}

/** @throws {StorageError} `invalid-argument`, with the list of known options for one that is not */
export function readOptions(options: Readonly<Record<string, string>>): CreateOptions {
  const { known, driver } = sorted(options);
  checkTogether(known);
  const text = (key: string): string | undefined => known.get(key);
  const size = text("size");
  const iops = text("iops");
  const encrypted = text("encrypted");
  const share = text("share");
  const mount = text("mount");
  const fstype = text("fstype");
  const fields: Record<string, string> = { ...driver };
  if (share !== undefined) fields["shareable"] = String(readFlag("share", share));
  if (mount !== undefined) fields[MOUNT_OPTIONS] = checkMountOptions(mount);
  if (fstype !== undefined) {
    if (!/^[a-z0-9]{1,16}$/.test(fstype)) throw bad("fstype", `cannot be "${fstype}"`);
    fields["fstype"] = fstype;
  }
  for (const key of ["from", "fromSnapshot"]) {
    const source = text(key);
    if (source !== undefined) fields[key.toLowerCase()] = source;
  }
  const act = ACTS.find((key) => known.has(key));
  const gib = size === undefined ? undefined : readSize(size);
  const given: Record<string, string> = {};
  for (const [key, value] of known) given[OPTIONS[key]?.names[0] ?? key] = value;
  return {
    ...(gib !== undefined && { size: gib }),
    ...optional("type", text("type")),
    ...(iops !== undefined && { iops: readCount("iops", iops) }),
    ...optional("availabilityZone", text("zone")),
    ...(encrypted !== undefined && { encrypted: readFlag("encrypted", encrypted) }),
    ...optional("from", text("from")),
    ...optional("fromSnapshot", text("fromSnapshot")),
    ...(act !== undefined && { act: { kind: act, volume: text(act) ?? "" } }),
    fields,
    given: { ...given, ...(gib !== undefined && { size: String(gib) }), ...fields },
  };
}

function optional<K extends string>(key: K, value: string | undefined): { [P in K]?: string } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]: string });
}
