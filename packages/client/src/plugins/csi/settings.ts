/** The plugin's own keys: `csi.…`, in its module or outside of all. */
import { StorageError } from "@libstorage/model";
import type { SettingReader } from "../../setting-reader.js";
import { wrong } from "../../settings.js";
import { CAPABILITIES } from "./capabilities.js";
import type { CapabilityName } from "./capabilities.js";
import type { TextMap } from "./messages.js";

export const MODES = ["all", "controller", "node"] as const;
export type CsiMode = (typeof MODES)[number];

export interface CsiSettings {
  /** By which the orchestrator knows the plugin. */
  readonly driverName: string;
  readonly mode: CsiMode;
  /** Where this node is, or, for a controller, where the service's volumes can be reached; empty: anywhere. */
  readonly topology: TextMap;
  /** 0: the orchestrator decides. */
  readonly maxVolumesPerNode: number;
  /** Of a blank volume for which nobody names one. */
  readonly fsType: string;
  /** Abilities that are there but are not advertised, for orchestrators that do not know their names. */
  readonly hidden: ReadonlySet<CapabilityName>;
  /** How long a call may work before its caller is told; what was begun goes on. */
  readonly changeMs: number;
  readonly readMs: number;
  /** How long the service's word on its abilities is believed. */
  readonly infoMs: number;
}

export const DRIVER_NAME = "csi.libstorage.org";

/** @see csi.proto, GetPluginInfoResponse.name */
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$/;
/** @see csi.proto, Topology */
const SEGMENT = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;

/**
 * `zone=eu1,rack=r3`; a key without a prefix of its own gets the driver's name as one.
 * @throws {StorageError} `invalid-argument`
 */
export function parseTopology(text: string, driverName: string): TextMap {
  const segments: Record<string, string> = {};
  for (const part of text.split(",").map((one) => one.trim())) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const [key, value] = [part.slice(0, Math.max(0, equals)), part.slice(equals + 1)];
    const [prefix, name = ""] = key.includes("/") ? key.split("/") : [driverName, key];
    if (prefix === undefined || !NAME.test(prefix) || !SEGMENT.test(name) || !SEGMENT.test(value))
      throw new StorageError(
        "invalid-argument",
        `"${part}" is no topology: write KEY=VALUE,… as in zone=eu1`,
      );
    segments[`${prefix}/${name}`] = value;
  }
  const prefixes = new Set(Object.keys(segments).map((key) => key.split("/")[0]));
  if (prefixes.size > 1)
    throw new StorageError(
      "invalid-argument",
      `the topology has keys of several prefixes (${[...prefixes].join(", ")}); the specification allows one`,
    );
  return segments;
}

/**
 * The public conformance suite (csi-sanity) fails for a plugin that names an ability which is newer than the suite:
 * these two are unknown to its versions 5.3, and the first to 5.4. The calls are served all the same, and no
 * orchestrator needs the names, apart from the sidecar external-snapshot-metadata. docs/kubernetes.md has a
 * table of the suite's versions.
 */
const HIDDEN = "GET_SNAPSHOT,SNAPSHOT_METADATA_SERVICE";
const NOTHING = "none";

/** `NAME,…`, or `none`. @throws {StorageError} with the known names */
function readHidden(text: string): ReadonlySet<CapabilityName> {
  const names = text.split(/[\s,]+/).filter((one) => one !== "");
  if (names.length === 1 && names[0] === NOTHING) return new Set();
  const isKnown = (name: string): name is CapabilityName =>
    (CAPABILITIES as readonly string[]).includes(name);
  const unknown = names.filter((name) => !isKnown(name));
  if (unknown.length > 0)
    throw wrong([
      {
        path: "csi.hide",
        message: `has ${unknown.join(", ")}, which the plugin does not advertise; there are ${CAPABILITIES.join(", ")}, or ${NOTHING} alone`,
      },
    ]);
  return new Set(names.filter(isKnown));
}

const CHANGE_MS = 600_000;
const READ_MS = 60_000;
const INFO_MS = 60_000;

/** @throws {StorageError} `invalid-argument` with every problem */
export function readCsiSettings(reader: SettingReader): CsiSettings {
  const text = (key: string): string | undefined => reader.text(`csi.${key}`);
  const driverName = text("driverName") ?? DRIVER_NAME;
  if (!NAME.test(driverName))
    throw wrong([
      { path: "csi.driverName", message: "is no domain name of at most 63 characters" },
    ]);
  const settings: CsiSettings = {
    driverName,
    mode: reader.choice("all", MODES, "csi.mode"),
    topology: parseTopology(text("topology") ?? "", driverName),
    maxVolumesPerNode: reader.count(0, "csi.maxVolumesPerNode"),
    fsType: text("fsType") ?? "ext4",
    hidden: readHidden(text("hide") ?? HIDDEN),
    changeMs: reader.duration(CHANGE_MS, "csi.changeTimeout"),
    readMs: reader.duration(READ_MS, "csi.readTimeout"),
    infoMs: reader.duration(INFO_MS, "csi.cache"),
  };
  if (reader.problems.length > 0) throw wrong(reader.problems);
  return settings;
}
