/** The two shelves of a root. */
import { join } from "node:path";
import type { Backing } from "./backing.js";
import { NO_ATTACHMENTS, NO_FIELDS, parseSnapshot, parseVolume } from "./records.js";
import type { SnapshotText, VolumeText } from "./records.js";
import { Shelf } from "./shelf.js";
import type { Parsed, ShelfOf } from "./shelf.js";

const NO_SOURCE = { kind: "none" } as const;

function flawOf<T extends Parsed>(
  backing: Backing | undefined,
  what: "volume" | "snapshot",
): Pick<ShelfOf<T>, "flawOf"> {
  if (backing?.flawOf === undefined) return {};
  return { flawOf: (path, stats) => backing.flawOf?.(path, stats, what) };
}

export function openVolumeShelf(root: string, backing?: Backing): Shelf<VolumeText> {
  return new Shelf(join(root, "vol"), {
    what: "volume",
    ...flawOf(backing, "volume"),
    parse: parseVolume,
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

export function openSnapshotShelf(root: string, backing?: Backing): Shelf<SnapshotText> {
  return new Shelf(join(root, "snap"), {
    what: "snapshot",
    ...flawOf(backing, "snapshot"),
    parse: parseSnapshot,
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
