/**
 * What an exporter is: how a source leaves this host. It knows no driver; any exporter that takes a kind of
 * source serves every driver that gives one. Which holder gets what, in which order, and what is undone
 * is the core's (`holds.ts`).
 *
 * The record of a holder stands in the volume's backend before anything is exported, and goes after the
 * export is gone. So an exporter keeps no state of its own: after a crash or a reboot it makes what the
 * records say, and what is its own and in no record may be withdrawn.
 */
import type * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { ExportAddRequest, HostFacts, InstanceID } from "@libstorage/model";
import type {
  Ability,
  AttachmentRecord,
  LiveImages,
  OpContext,
  Source,
  VolumeRecord,
} from "./driver.js";

/** What is asked for: a holder, which is another host, and the epoch with which it is let in. */
export interface Wanted {
  readonly holder: InstanceID;
  readonly facts: HostFacts;
  readonly epoch: number;
}

/** How a holder reaches a volume. All of it is told to the holder: no secrets. */
export interface Door {
  /**
   * What the holder mounts: for a block device a link that says which volume it is, such as
   * `/dev/disk/by-id/wwn-0x6001405…`; for a folder `HOST:PATH`. A wrong name here overwrites someone's disk.
   */
  readonly deviceName: string;
  /** Address, names and numbers, for the holder's executor; kept with the attachment. */
  readonly fields: Readonly<Record<string, string>>;
}

/** One holder that an exporter has let in, or shall. */
export interface Hold {
  readonly volume: VolumeRecord;
  readonly attachment: AttachmentRecord;
}

/** A connection that exists now. */
export interface Session {
  readonly volumeID: string;
  /** The holder whose connection it is, where that is known. */
  readonly instanceID?: string;
  /** As the connection names itself: an initiator name, or an address. */
  readonly peer: string;
  readonly address?: string;
  readonly state: string;
}

/** What is asked of a volume that is served on this host. */
export type DoorOptions = Omit<ExportAddRequest, "volumeID" | "type" | "id">;

/** A door of its own, which serves whoever comes through it, is asked for. */
export interface WantedDoor {
  readonly exportID: string;
  readonly options: DoorOptions;
  readonly epoch: number;
}

/**
 * Serving volumes on this host, beside letting other hosts in. A door is a hold like any other: it is exported,
 * unexported and restored by the exporter's methods. Its options stand in its record (`doorOf`).
 */
export interface DoorAbilities {
  /**
   * As the exporter's `plan`, for a door. Refuses what the exporter cannot do, and what is in the way.
   * @throws {StorageError} `invalid-argument`, `failed-precondition`, `already-exists`, `unimplemented`
   */
  plan(volume: VolumeRecord, wanted: WantedDoor, context: OpContext): Promise<Door>;
  /** Makes the options that the record now has count, while the door is in use. */
  update(hold: Hold, context: OpContext): Promise<void>;
  /** Who uses it now, in words; undefined when nobody does. */
  userOf(hold: Hold, context: OpContext): Promise<string | undefined>;
  /** Nobody new gets in; who is in stays. With `shutdown` all further requests fail. */
  hide(hold: Hold, shutdown: boolean, context: OpContext): Promise<void>;
}

/** Each method may be called again, and tolerates half states. @throws {StorageError} */
export interface Exporter {
  readonly name: string;
  readonly sources: readonly Source["kind"][];
  /**
   * Chooses every name and number for a holder before anything is done; changes nothing. What can be refused is
   * refused here: after this, those whom the holder replaces are cut off.
   * @param volume as it will be, without those whom the holder replaces: they are exported still
   * @throws {StorageError} `invalid-argument` when the holder's facts lack what is needed: say how to give it
   */
  plan(volume: VolumeRecord, wanted: Wanted, context: OpContext): Promise<Door>;
  /**
   * Lets the holder in, through the door that its attachment names. Done already: changes nothing. Names and paths in its
   * fields (`claims.ts`) are no other hold's.
   */
  export(hold: Hold, context: OpContext): Promise<void>;
  /**
   * Cuts the holder off, and answers when that is proven: no write of it arrives from then on.
   * @throws {StorageError} `failed-precondition` when the cut cannot be proven: say what to do
   */
  unexport(hold: Hold, context: OpContext): Promise<void>;
  /** Makes the volume's new size known to its holders; called after it has grown. */
  expanded?(volume: VolumeRecord, context: OpContext): Promise<void>;
  /** The image of a volume that it exports; left out when it keeps nobody from changing it. */
  readonly live?: LiveImages;
  /** Left out when it serves hosts that have attached, and nobody else. */
  readonly doors?: DoorAbilities;
  /**
   * Brings what is exported to what the records say; called at start, before any other call. Leaves alone
   * what is not its own.
   * @param holds those that are to be exported
   * @param all those of every exporter of the service, and those on their way out, for what they share
   * @returns the holds that could not be restored, and why
   */
  restore(
    holds: readonly Hold[],
    context: OpContext,
    all?: readonly Hold[],
  ): Promise<readonly NotRestored[]>;
  /** Calls back when exports were lost, as when a daemon was restarted; the core then exports anew. */
  watch?(onLost: () => void): () => void;
  /** Who is connected now, to which of these volumes. */
  sessions(volumes: readonly VolumeRecord[], context: OpContext): Promise<readonly Session[]>;
  abilities(context: OpContext): Promise<readonly Ability[]>;
  /** Lets go of daemons and files; what is exported stays exported. */
  close(): Promise<void>;
}

/** What an exporter is opened with. */
export interface ExporterContext extends OpContext {
  /** The service's name. */
  readonly service: string;
  /** A folder of this server for what is not in the backend; made on demand. */
  readonly libFolder: string;
  /** What several exporters of the service use together: opened by the first that asks for it by this key. */
  readonly shared?: <T>(key: string, open: () => T) => T;
}

/** To be given to all exporters of one service. */
export function openShared(): <T>(key: string, open: () => T) => T {
  const known = new Map<string, unknown>();
  return <T>(key: string, open: () => T): T => {
    if (!known.has(key)) known.set(key, open());
    return known.get(key) as T;
  };
}

export interface ExporterModule {
  readonly name: string;
  /** The exporter's own keys, for checking and for the documentation. */
  readonly config: v.GenericSchema;
  open(config: unknown, context: ExporterContext): Promise<Exporter>;
}

/** Hides the type of an exporter's configuration, so that all exporters fit one table. */
export function defineExporter<S extends v.GenericSchema>(spec: {
  readonly name: string;
  readonly config: S;
  open(config: v.InferOutput<S>, context: ExporterContext): Promise<Exporter>;
}): ExporterModule {
  return { ...spec, open: (config, context) => spec.open(config as v.InferOutput<S>, context) };
}

/** A hold that could not be restored, and why. */
export interface NotRestored<H extends Hold = Hold> {
  readonly hold: H;
  readonly error: unknown;
}

/** Makes each hold's export in turn, and goes on when one cannot be made. */
export async function restoreEach<H extends Hold>(
  holds: readonly H[],
  make: (hold: H) => Promise<void>,
): Promise<NotRestored<H>[]> {
  const failed: NotRestored<H>[] = [];
  for (const hold of holds)
    await make(hold).catch((error: unknown) => failed.push({ hold, error }));
  return failed;
}

/** The holders that came through an exporter, of some volumes. */
export function holdsOf(volumes: readonly VolumeRecord[]): readonly Hold[] {
  return volumes.flatMap((volume) =>
    volume.attachments
      .filter((attachment) => exporterOf(attachment) !== undefined)
      .map((attachment) => ({ volume, attachment })),
  );
}

/** Names a hold among those of its service; a holder that comes anew has another. */
export function keyOf({ volume, attachment: { instanceID, epoch } }: Hold): string {
  return JSON.stringify([volume.id, instanceID.id, epoch]);
}

/** The field of an attachment that names the exporter through which its holder came. */
const EXPORTER = "exporter";

/** The exporter through which a holder has a volume, or undefined for a holder on this host. */
export function exporterOf({ fields }: AttachmentRecord): string | undefined {
  return fields?.[EXPORTER];
}

export function fieldsOfDoor(exporter: string, { fields }: Door): Record<string, string> {
  return { ...fields, [EXPORTER]: exporter };
}

/** Hosts have no such ids, so that none gets at a door by its name. */
const DOOR_HOLDER = "export:";

export type DoorState = "open" | "hidden" | "shutdown";

/** What the record of a door says of it. */
export interface DoorRecord {
  readonly id: string;
  readonly isWritable: boolean;
  readonly state: DoorState;
  readonly options: DoorOptions;
}

/** The holder in whose name a door stands in the access table. */
export function holderOfDoor(exportID: string, driver: string): InstanceID {
  return { id: `${DOOR_HOLDER}${exportID}`, driver, service: "" };
}

export function isDoorHolder({ id }: InstanceID): boolean {
  return id.toLowerCase().startsWith(DOOR_HOLDER);
}

export function fieldsOfDoorRecord({ id, isWritable, state, options }: DoorRecord) {
  return {
    exportID: id,
    access: isWritable ? "rw" : "ro",
    state,
    options: JSON.stringify(options),
  };
}

/** The door that a hold is, or undefined for a host's. @throws {StorageError} for a record changed by hand */
export function doorOf({ instanceID, fields = {} }: AttachmentRecord): DoorRecord | undefined {
  if (!isDoorHolder(instanceID)) return undefined;
  const { exportID: id = "", access, state = "open", options = "" } = fields;
  try {
    return {
      id,
      isWritable: access === "rw",
      state: state as DoorState,
      options: JSON.parse(options) as DoorOptions,
    };
  } catch (error) {
    throw new StorageError(
      "data-loss",
      `the record of ${instanceID.id} does not say how it is exported; remove it with mode "hard" and add it again`,
      { exportID: id },
      { cause: error },
    );
  }
}

/** Whether a hold can change nothing: any number of such may stand beside each other. */
export function isReader(attachment: AttachmentRecord): boolean {
  return exporterOf(attachment) !== undefined && attachment.fields?.["access"] === "ro";
}
