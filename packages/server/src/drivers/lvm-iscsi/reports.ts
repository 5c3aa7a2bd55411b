/** Reports of LVM: `--reportformat json --units b --nosuffix`, whose values are all texts. */
import { StorageError } from "@libstorage/model";
import * as v from "valibot";

const Bytes = v.pipe(v.string(), v.regex(/^\d+$/), v.transform(Number));
const Percent = v.pipe(
  v.string(),
  v.regex(/^(?:\d+(?:\.\d+)?)?$/),
  v.transform((text) => (text === "" ? undefined : Number(text))),
);

const Count = v.pipe(v.string(), v.regex(/^\d+$/), v.transform(Number));

/** `lvs -o` for these. */
export const LV_COLUMNS = [
  "lv_name,lv_uuid,vg_uuid,vg_seqno,lv_size,lv_tags,origin,origin_size,pool_lv,segtype",
  "lv_active,lv_health_status,lv_snapshot_invalid",
  "data_percent,metadata_percent,lv_metadata_size,zero",
].join(",");

const Lv = v.object({
  lv_name: v.string(),
  lv_uuid: v.string(),
  vg_uuid: v.string(),
  vg_seqno: Count,
  lv_size: Bytes,
  lv_tags: v.string(),
  origin: v.string(),
  origin_size: v.string(),
  pool_lv: v.string(),
  segtype: v.string(),
  lv_active: v.string(),
  lv_health_status: v.string(),
  lv_snapshot_invalid: v.string(),
  data_percent: Percent,
  metadata_percent: Percent,
  lv_metadata_size: v.string(),
  zero: v.string(),
});

/** What a thin pool says beside. */
export interface PoolState {
  readonly metadataBytes: number;
  /** Undefined while the pool is not active. Two decimals. */
  readonly dataPercent: number | undefined;
  readonly metadataPercent: number | undefined;
  /** Whether new blocks are zeroed, so that nobody reads what another has written. */
  readonly isZeroing: boolean;
}

/** One logical volume. */
export interface LvRow {
  readonly name: string;
  /** As device-mapper and udev write it: `LVM-` and the ids of group and volume without dashes. */
  readonly dmUUID: string;
  /** The group's. */
  readonly seqno: number;
  readonly sizeBytes: number;
  /** The size of its data; of a snapshot with space of its own `sizeBytes` is that space. */
  readonly dataBytes: number;
  readonly tags: readonly string[];
  readonly origin: string;
  readonly pool: string;
  /** Such as `linear`, `thin`, `thin-pool`; that of a snapshot with space of its own is `linear`, too. */
  readonly segmentType: string;
  readonly isActive: boolean;
  /** Empty, or such as `partial`; of a pool `out_of_data`, `metadata_read_only`, `failed`. */
  readonly health: string;
  readonly isSnapshotInvalid: boolean;
  /** Of a thin pool. */
  readonly state?: PoolState;
}

export function isThin({ pool }: Pick<LvRow, "pool">): boolean {
  return pool !== "";
}

/** @throws {StorageError} `failed-precondition` for a report of another form */
function rowsOf<S extends v.GenericSchema>(
  text: string,
  key: string,
  schema: S,
): v.InferOutput<S>[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw unknownForm("it is not JSON");
  }
  const Report = v.object({
    report: v.array(v.object({ [key]: v.optional(v.array(schema), []) })),
  });
  const result = v.safeParse(Report, json);
  if (result.success)
    return result.output.report.flatMap((part) => part[key] as v.InferOutput<S>[]);
  const [issue] = result.issues;
  throw unknownForm(`${v.getDotPath(issue) ?? "the whole"}: ${issue.message}`);
}

function unknownForm(what: string): StorageError {
  return new StorageError(
    "failed-precondition",
    `LVM's report has a form that this version does not know (${what}); is there another version of LVM on this host? (lvm version)`,
    { what },
  );
}

function poolStateOf(row: v.InferOutput<typeof Lv>): { readonly state?: PoolState } {
  if (row.segtype !== "thin-pool") return {};
  return {
    state: {
      metadataBytes: Number(row.lv_metadata_size),
      dataPercent: row.data_percent,
      metadataPercent: row.metadata_percent,
      isZeroing: row.zero === "zero",
    },
  };
}

export function parseLvs(text: string): LvRow[] {
  return rowsOf(text, "lv", Lv).map((row) => ({
    name: row.lv_name,
    dmUUID: `LVM-${`${row.vg_uuid}${row.lv_uuid}`.replaceAll("-", "")}`,
    seqno: row.vg_seqno,
    sizeBytes: row.lv_size,
    dataBytes: Number(row.origin_size) || row.lv_size,
    tags: row.lv_tags === "" ? [] : row.lv_tags.split(","),
    origin: row.origin,
    pool: row.pool_lv,
    segmentType: row.segtype,
    isActive: row.lv_active !== "",
    health: row.lv_health_status,
    isSnapshotInvalid: row.lv_snapshot_invalid !== "" && row.lv_snapshot_invalid !== "unknown",
    ...poolStateOf(row),
  }));
}

/** `vgs -o` for these. */
export const VG_COLUMNS = [
  "vg_name,vg_seqno,vg_extent_size,vg_free,vg_size",
  "vg_missing_pv_count,vg_exported,vg_lock_type,vg_mda_size,vg_mda_free",
].join(",");

const Vg = v.object({
  vg_name: v.string(),
  vg_seqno: Count,
  vg_extent_size: Bytes,
  vg_free: Bytes,
  vg_size: Bytes,
  vg_missing_pv_count: Count,
  vg_exported: v.string(),
  vg_lock_type: v.string(),
  vg_mda_size: Bytes,
  vg_mda_free: Bytes,
});

export interface VgRow {
  readonly seqno: number;
  readonly extentBytes: number;
  readonly freeBytes: number;
  readonly totalBytes: number;
  readonly missingDisks: number;
  readonly isExported: boolean;
  /** `sanlock` or `dlm` for a group that hosts share under locks. */
  readonly lockType: string;
  readonly metadataBytes: number;
  readonly metadataFreeBytes: number;
}

export function parseVgs(text: string): VgRow[] {
  return rowsOf(text, "vg", Vg).map((row) => ({
    seqno: row.vg_seqno,
    extentBytes: row.vg_extent_size,
    freeBytes: row.vg_free,
    totalBytes: row.vg_size,
    missingDisks: row.vg_missing_pv_count,
    isExported: row.vg_exported !== "",
    lockType: row.vg_lock_type,
    metadataBytes: row.vg_mda_size,
    metadataFreeBytes: row.vg_mda_free,
  }));
}
