/** The two shelves of a root. */
import { join } from "node:path";
import type { Source } from "../../core/driver.js";
import type { Backing } from "./backing.js";
import { NO_ATTACHMENTS, NO_FIELDS, parseSnapshot, parseVolume } from "./records.js";
import type { SnapshotText, VolumeText } from "./records.js";
import { Shelf } from "./shelf.js";
import type { Parsed, ShelfOf } from "./shelf.js";

const NO_SOURCE = { kind: "none" } as const;

/** What differs between the shelves of the drivers that keep records beside data. */
export interface ShelfRules extends Pick<Backing, "flawOf"> {
  /** Where the bytes are, for data that are not the folder itself. @throws {Error} saying what is wrong */
  sourceOf?(text: VolumeText | SnapshotText, folder: string): Source;
}

function withSource<T extends VolumeText | SnapshotText>(
  rules: ShelfRules | undefined,
  text: T,
  source: Source,
): T {
  if (rules?.sourceOf === undefined || source.kind !== "directory") return text;
  return { ...text, record: { ...text.record, source: rules.sourceOf(text, source.path) } };
}

function flawOf<T extends Parsed>(
  backing: ShelfRules | undefined,
  what: "volume" | "snapshot",
): Pick<ShelfOf<T>, "flawOf"> {
  if (backing?.flawOf === undefined) return {};
  return { flawOf: (path, stats) => backing.flawOf?.(path, stats, what) };
}

export function openVolumeShelf(root: string, backing?: ShelfRules): Shelf<VolumeText> {
  return new Shelf(join(root, "vol"), {
    what: "volume",
    ...flawOf(backing, "volume"),
    parse: (text, id, source) => withSource(backing, parseVolume(text, id, source), source),
    needsData: () => true,
    broken: (id, why, parsed) => ({
      projectID: parsed?.projectID,
      record: {
        // Named after its id, so that it is seen in lists by name.
        name: id,
        sizeBytes: 0,
        type: "",
        availabilityZone: "",
        iops: 0,
        encrypted: false,
        fields: NO_FIELDS,
        attachments: NO_ATTACHMENTS,
        epoch: 0,
        ...parsed?.record,
        id,
        source: NO_SOURCE,
        broken: why,
      },
    }),
  });
}

export function openSnapshotShelf(root: string, backing?: ShelfRules): Shelf<SnapshotText> {
  return new Shelf(join(root, "snap"), {
    what: "snapshot",
    ...flawOf(backing, "snapshot"),
    parse: (text, id, source) => withSource(backing, parseSnapshot(text, id, source), source),
    needsData: ({ hasData }) => hasData,
    broken: (id, why, parsed) => ({
      hasData: parsed?.hasData ?? false,
      record: {
        name: id,
        volumeID: "",
        sizeBytes: 0,
        encrypted: false,
        startTime: 0,
        status: "",
        fields: NO_FIELDS,
        ...parsed?.record,
        id,
        source: NO_SOURCE,
        broken: why,
      },
    }),
  });
}
