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
import type { InstanceID } from "@libstorage/model";
import type { HostFacts } from "@libstorage/model";
import type { Ability, AttachmentRecord, OpContext, Source, VolumeRecord } from "./driver.js";

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

/** Each method may be called again, and tolerates half states. @throws {StorageError} */
export interface Exporter {
  readonly name: string;
  readonly sources: readonly Source["kind"][];
  /**
   * Chooses every name and number for a holder before anything is done; changes nothing.
   * @throws {StorageError} `invalid-argument` when the holder's facts lack what is needed: say how to give it
   */
  plan(volume: VolumeRecord, wanted: Wanted, context: OpContext): Promise<Door>;
  /** Lets the holder in, through the door that its attachment names. Done already: changes nothing. */
  export(hold: Hold, context: OpContext): Promise<void>;
  /**
   * Cuts the holder off, and answers when that is proven: no write of it arrives from then on.
   * @throws {StorageError} `failed-precondition` when the cut cannot be proven: say what to do
   */
  unexport(hold: Hold, context: OpContext): Promise<void>;
  /** Makes the volume's new size known to its holders; called after it has grown. */
  expanded?(volume: VolumeRecord, context: OpContext): Promise<void>;
  /**
   * Brings what is exported to what the records say; called at start, before any other call. Leaves alone
   * what is not its own.
   * @returns the holds that could not be restored, and why
   */
  restore(
    holds: readonly Hold[],
    context: OpContext,
  ): Promise<readonly { readonly hold: Hold; readonly error: unknown }[]>;
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

/** The holders that came through an exporter, of some volumes. */
export function holdsOf(volumes: readonly VolumeRecord[]): readonly Hold[] {
  return volumes.flatMap((volume) =>
    volume.attachments
      .filter((attachment) => exporterOf(attachment) !== undefined)
      .map((attachment) => ({ volume, attachment })),
  );
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
