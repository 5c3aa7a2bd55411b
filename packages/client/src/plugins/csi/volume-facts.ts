/**
 * What the plugin notes with the volumes and snapshots that it makes: under which name, of what, with
 * which parameters. It stands in their fields, so every plugin on every host reads the same.
 */
import { createHash } from "node:crypto";
import * as v from "valibot";
import type { Fields, Snapshot, Volume } from "@libstorage/model";
import type { ContentSource, TextMap } from "./messages.js";
import { objectName } from "./names.js";

const NAME = "csi.name";
const PARAMETERS = "csi.parameters";
const SOURCE = "csi.source";
const SIZE = "csi.size";
const CHOICES = "csi.choices";
const GROUP = "csi.group";
const MEMBERS = "csi.members";

/** What a copy shall have otherwise than its source. */
const Choices = v.strictObject({ type: v.optional(v.string()), iops: v.optional(v.number()) });
export type Choices = v.InferOutput<typeof Choices>;

export interface VolumeFacts {
  readonly name: string;
  /** A digest of the parameters. */
  readonly parameters: string;
  /** `snapshot:ID`, `volume:ID`, or empty. */
  readonly source: string;
  /** GiB that it shall have in the end; 0: as it was made. */
  readonly size: number;
  /** What has still to be changed of it. */
  readonly choices: Choices;
}

export function digestOf(parameters: TextMap): string {
  const sorted = Object.entries(parameters).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256").update(JSON.stringify(sorted)).digest("hex").slice(0, 32);
}

export function sourceText(source: ContentSource | null): string {
  if (source?.type === "snapshot") return `snapshot:${source.snapshot?.snapshotId ?? ""}`;
  if (source?.type === "volume") return `volume:${source.volume?.volumeId ?? ""}`;
  return "";
}

export function sourceOf(text: string): ContentSource | undefined {
  const colon = text.indexOf(":");
  const id = text.slice(colon + 1);
  if (text.startsWith("snapshot:")) return { type: "snapshot", snapshot: { snapshotId: id } };
  if (text.startsWith("volume:")) return { type: "volume", volume: { volumeId: id } };
  return undefined;
}

/** All that a source may have are written, so that none is inherited from it. */
export function fieldsOf({ name, parameters, source, size, choices }: VolumeFacts): Fields {
  return {
    [NAME]: name,
    [PARAMETERS]: parameters,
    [SOURCE]: source,
    [SIZE]: String(size),
    ...(source !== "" && { [CHOICES]: JSON.stringify(choices) }),
  };
}

/** For the change that makes them so. */
export const CHOICES_DONE: Fields = { [CHOICES]: "{}" };

function choicesIn(text: string): Choices {
  try {
    return v.parse(Choices, JSON.parse(text));
  } catch {
    // Somebody else has written it.
    return {};
  }
}

/**
 * @returns undefined for a volume that no plugin made: copies have the fields of their source, but not
 * its name
 */
export function factsOf({ name, fields = {} }: Volume): VolumeFacts | undefined {
  const own = fields[NAME];
  if (own === undefined || objectName(own) !== name) return undefined;
  return {
    name: own,
    parameters: fields[PARAMETERS] ?? "",
    source: fields[SOURCE] ?? "",
    size: Number(fields[SIZE] ?? 0) || 0,
    choices: choicesIn(fields[CHOICES] ?? "{}"),
  };
}

/** The group that a snapshot is one of. */
export interface GroupFacts {
  /** Empty for one of its own. */
  readonly group: string;
  /** A digest of the volumes that the whole group is of. */
  readonly members: string;
}

export const NO_GROUP: GroupFacts = { group: "", members: "" };

export function digestOfMembers(volumeIDs: Iterable<string>): string {
  const text = JSON.stringify([...volumeIDs].toSorted());
  return createHash("sha256").update(text).digest("hex").slice(0, 32);
}

export function snapshotFields(name: string, { group, members }: GroupFacts): Fields {
  return { [NAME]: name, [GROUP]: group, [MEMBERS]: members };
}

export interface SnapshotFacts extends GroupFacts {
  readonly name: string;
}

export function snapshotFactsOf({ name = "", fields = {} }: Snapshot): SnapshotFacts | undefined {
  const own = fields[NAME];
  if (own === undefined || objectName(own) !== name) return undefined;
  return { name: own, group: fields[GROUP] ?? "", members: fields[MEMBERS] ?? "" };
}
