import { parseSize } from "@libstorage/model";
import * as v from "valibot";
import { isLvmName, MAX_PREFIX } from "./names.js";

const Name = v.pipe(
  v.string(),
  v.check(isLvmName, "must be a name that LVM allows: letters, digits and + _ . -"),
);

const Percent = v.pipe(v.number(), v.minValue(1), v.maxValue(100));

const SIZE = "must be a size such as 10G, or a share such as 20%";

/** A size, or a share of what is there. */
const Step = v.pipe(
  v.string(),
  v.check((text) => stepOf(text) !== undefined, SIZE),
);

const Size = v.pipe(
  v.string(),
  v.check((text) => (parseSize(text) ?? 0) > 0, "must be a size such as 500G"),
);

export interface ByPercent {
  readonly percent: number;
}
export interface ByBytes {
  readonly bytes: number;
}

export function stepOf(text: string): ByPercent | ByBytes | undefined {
  const share = /^(\d{1,4})%$/.exec(text.trim())?.[1];
  if (share !== undefined) return Number(share) > 0 ? { percent: Number(share) } : undefined;
  const bytes = parseSize(text);
  return bytes === undefined || bytes === 0 ? undefined : { bytes };
}

const described = <S extends v.GenericSchema>(schema: S, text: string) =>
  v.pipe(schema, v.description(text));

/** What is said of the pool's data or metadata alone, in place of what is said of both. */
const partLimits = (part: "data" | "metadata") =>
  v.optional(
    v.strictObject({
      warnAt: v.optional(described(Percent, `\`warnAt\` for ${part} alone.`)),
      extendAt: v.optional(described(Percent, `\`extendAt\` for ${part} alone.`)),
      extendBy: v.optional(described(Step, `\`extendBy\` for ${part} alone.`)),
      extendTo: v.optional(
        described(Size, `The pool's ${part} are not extended beyond this size.`),
      ),
      refuseAt: v.optional(described(Percent, `\`refuseAt\` for ${part} alone.`)),
      suspendAt: v.optional(described(Percent, `\`suspendAt\` for ${part} alone.`)),
    }),
  );

interface Refusing {
  readonly refuseAt?: number | undefined;
  readonly suspendAt?: number | undefined;
}

/** Writers wait only where nothing new is made any more. */
function isInOrder({
  data = {},
  metadata = {},
  ...both
}: Required<Refusing> & {
  readonly data?: Refusing | undefined;
  readonly metadata?: Refusing | undefined;
}): boolean {
  return [data, metadata].every(
    ({ refuseAt = both.refuseAt, suspendAt = both.suspendAt }) =>
      (refuseAt ?? 0) <= (suspendAt ?? 100),
  );
}

const ThinPoolConfig = v.pipe(
  v.strictObject({
    data: partLimits("data"),
    metadata: partLimits("metadata"),
    warnAt: v.optional(
      described(Percent, "From this fill on (percent of data or metadata) the log warns."),
      80,
    ),
    extendAt: v.optional(
      described(
        Percent,
        "From this fill on the pool is extended by `extendBy`, while the volume group has room.",
      ),
      85,
    ),
    extendBy: v.optional(
      described(
        Step,
        "How far data or metadata is extended at once: a size, or a share of what it has. Left out: never.",
      ),
    ),
    extendTo: v.optional(
      described(
        Size,
        "The pool's data is not extended beyond this size. Left out: as far as the volume group has room.",
      ),
    ),
    refuseAt: v.optional(
      described(Percent, "From this fill on no volume, copy or snapshot is made in the pool."),
      92,
    ),
    suspendAt: v.optional(
      described(
        Percent,
        "From this fill on the service's volumes in the pool are suspended, so that writers wait instead of losing data; they go on once the pool has room again.",
      ),
      97,
    ),
    allowLarger: v.optional(
      described(
        v.boolean(),
        "Whether a volume may be larger than the pool, with what `extendTo` allows it to become.",
      ),
      false,
    ),
    checkSeconds: v.optional(
      described(
        v.pipe(v.number(), v.minValue(0.2), v.maxValue(600)),
        "How often the fill is looked at at least; more often as the pool fills, and the faster it does.",
      ),
      10,
    ),
  }),
  v.check(
    (all) => isInOrder(all),
    "`refuseAt` must not be above `suspendAt`, neither for data nor for metadata",
  ),
);
export type ThinPoolConfig = v.InferOutput<typeof ThinPoolConfig>;

/** The keys of an lvm-iscsi service. */
export const LvmConfig = v.pipe(
  v.strictObject({
    volumeGroup: described(
      Name,
      "The volume group that holds the volumes. It must exist; other logical volumes in it are left alone.",
    ),
    thinPool: v.optional(
      described(
        Name,
        "A thin pool in the group. With it volumes are thin, unless `provisioning` or their own option says otherwise; without it they have all their space from the beginning.",
      ),
    ),
    provisioning: v.optional(
      described(
        v.picklist(["thin", "thick"]),
        "What a new volume is that says nothing in its option `provisioning`. Left out: `thin` where there is a thin pool.",
      ),
    ),
    prefix: v.optional(
      described(
        v.pipe(
          Name,
          v.maxLength(MAX_PREFIX),
          v.check(
            (name) => !/\d$/.test(name) && isLvmName(`${name}000`),
            "must not end with a digit, nor be one that LVM reserves",
          ),
        ),
        "How the names of the service's logical volumes begin. Two services of one group need different ones, none of which begins with another.",
      ),
      "lvm-",
    ),
    defaultSize: v.optional(
      described(
        v.pipe(
          v.string(),
          v.check((text) => (parseSize(text) ?? 0) > 0, "must be a size such as 10G"),
        ),
        "The size of a volume for which none is asked.",
      ),
      "1G",
    ),
    wipe: v.optional(
      described(
        v.picklist(["none", "discard", "zero"]),
        "What is done to the data of a volume before its space is given back: nothing, `blkdiscard`, or zeros written over all of it. In a thin pool `zero` is `blkdiscard`, since the pool zeroes blocks before it gives them again; one that does not is refused.",
      ),
      "none",
    ),
    snapshotPercent: v.optional(
      described(
        v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(100)),
        "Without a thin pool: the space of a snapshot in percent of its volume. With 100 it cannot overflow.",
      ),
      100,
    ),
    watchSeconds: v.optional(
      described(
        v.pipe(v.number(), v.minValue(0.2), v.maxValue(3600)),
        "How often the group is looked at for changes made by hand and lost disks; every sixth time also for thick snapshots that have overflowed.",
      ),
      10,
    ),
    pool: v.optional(described(ThinPoolConfig, "What is done as the thin pool fills."), {}),
  }),
  v.forward(
    v.partialCheck(
      [["provisioning"], ["thinPool"]],
      ({ provisioning, thinPool }) => provisioning !== "thin" || thinPool !== undefined,
      "volumes can be thin only in a thin pool; set thinPool",
    ),
    ["provisioning"],
  ),
);
export type LvmConfig = v.InferOutput<typeof LvmConfig>;
