/** A storage host `a` with the server, a host `b` that uses its volumes, and what there is of them on either. */
import assert from "node:assert/strict";
import type { VolumeMap } from "@libstorage/model";
import { LabServer } from "./lab-server.js";
import { CONFIG } from "./mutual-tls.js";
import type { Hosts } from "./network.js";

export const MOUNTS = "/var/lib/libstorage/volumes";
/** What programs use of the volume `data`. */
export const DATA = `${MOUNTS}/data/data`;
/** Machines without virtualisation are slow, and the host may have other work. */
export const SLOW = { limitMs: 300_000 };

/** How many there are of each kind of thing by which a host has a volume. */
export type Counts = object;

/** Counts where one volume is in one of these states on `b`, and no other is there. */
export interface States<Census extends Counts> {
  readonly away: Census;
  readonly attached: Census;
  readonly mounted: Census;
}

export type State = keyof States<Counts>;

/** Two lines: mounts of ours on a host, and the files of its client about volumes that it has. */
export const COUNT_MOUNTS_AND_RECORDS = `echo $(grep ' ${MOUNTS}/' /proc/mounts | grep -vc foreign)
  echo $(find /var/lib/libstorage/mounts /var/lib/libstorage/connections -type f -not -name '*.lock' 2>/dev/null | wc -l)`;

export abstract class ServedHosts<Census extends Counts> {
  readonly hosts: Hosts;
  readonly service: string;
  server!: LabServer;
  abstract readonly states: States<Census>;

  constructor(hosts: Hosts, service: string) {
    this.hosts = hosts;
    this.service = service;
  }

  async startServer(): Promise<void> {
    this.server = await LabServer.start(this.hosts.a, CONFIG);
  }

  /** As a crash and a start. */
  async restartServer(): Promise<void> {
    await this.server.kill();
    await this.startServer();
  }

  /** As the server has them. */
  async volumes(): Promise<VolumeMap> {
    const url = `http://localhost/volumes/${this.service}?attachments=1`;
    const text = await this.hosts.a.run(
      `curl -sSf --unix-socket /run/libstorage/libstorage.sock '${url}'`,
      SLOW,
    );
    return JSON.parse(text) as VolumeMap;
  }

  async attachments(): Promise<number> {
    const all = Object.values(await this.volumes());
    return all.reduce((sum, one) => sum + (one.attachments?.length ?? 0), 0);
  }

  /** How many volumes and snapshots there are where their bytes are, half ones too. */
  abstract stored(): Promise<number>;

  /** A volume has this size where it is enforced or seen. */
  abstract hasSize(volumeID: string, sizeGiB: number): Promise<void>;

  abstract census(): Promise<Census>;

  async counts(state: State, when: string): Promise<void> {
    assert.deepEqual(await this.census(), this.states[state], when);
  }

  /** Nothing of ours is on either host, but what the service is made of. */
  abstract nothingLeft(): Promise<void>;
}
