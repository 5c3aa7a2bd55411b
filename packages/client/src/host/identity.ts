/** Who this host is to a service, section 16.1 of the contract. */
import { StorageError } from "@libstorage/model";
import type { CallContext, InstanceID, ServiceInfo, VolumeService } from "@libstorage/model";
import type { Executor, ExecutorContext } from "../executor/executor.js";
import { EXECUTORS, openExecutor } from "../executor/index.js";
import { readHostFacts } from "./host-facts.js";

export interface HostIdentity {
  readonly info: ServiceInfo;
  readonly executor: Executor;
  /** As the server works it out; from then on sent without metadata, or with what an exporter needs. */
  readonly instanceID: InstanceID;
}

/** The ids that this host's executors can tell without the server, for lists. */
export function likelyIDs(context: ExecutorContext): readonly InstanceID[] {
  return Object.values(EXECUTORS)
    .map((open) => open(context).likelyID?.())
    .filter((id) => id !== undefined);
}

/**
 * Asks a service who it is and who this host is to it: one request, with what every executor has to say,
 * of which the server takes the one of its driver.
 * @throws {StorageError} `unimplemented` for a driver that this client has no executor for
 */
export async function identify(
  service: VolumeService,
  name: string,
  executors: ExecutorContext,
  context: CallContext,
): Promise<HostIdentity> {
  const seeds = await Promise.all(
    Object.values(EXECUTORS).map((open) => open(executors).instanceID()),
  );
  const info = await service
    .serviceInspect({ service: name, instance: true }, undefined, {
      ...context,
      instanceIDs: seeds,
    })
    .catch(async (error: unknown) => {
      // A driver that none of the ids is for: say which.
      if (!(error instanceof StorageError) || error.code !== "invalid-argument") throw error;
      const plain = await service.serviceInspect({ service: name }, undefined, context);
      if (openExecutor(plain.driver.name, executors) !== undefined) throw error;
      throw noExecutor(name, plain.driver.name);
    });
  const executor = openExecutor(info.driver.name, executors);
  if (executor === undefined) throw noExecutor(name, info.driver.name);
  const seed = seeds.find(({ driver }) => driver === executor.driver);
  const given = info.instance?.instanceID;
  if (given === undefined || given.id === "" || seed === undefined)
    throw new StorageError("internal", `service ${name} did not say which instance this host is`, {
      service: name,
    });
  // The server lets other hosts in by what they tell of themselves.
  const metadata =
    info.exporter === undefined ? undefined : await readHostFacts(executors.hostName);
  const facts = metadata !== undefined && { metadata };
  if (seed.metadata === undefined) return { info, executor, instanceID: { ...seed, ...facts } };
  const { id, fields } = given;
  return {
    info,
    executor,
    instanceID: {
      id,
      driver: executor.driver,
      service: name,
      ...(fields !== undefined && { fields }),
      ...facts,
    },
  };
}

function noExecutor(service: string, driver: string): StorageError {
  return new StorageError(
    "unimplemented",
    `service ${service} uses the driver ${driver}, which this client has no executor for (it has ${Object.keys(EXECUTORS).join(", ")})`,
    { service, driver },
  );
}

/** One identity, asked for again when its time is over. */
export class IdentityCache {
  readonly #ask: (context: CallContext) => Promise<HostIdentity>;
  readonly #lifeMs: number;
  readonly #now: () => number;
  #known: { readonly until: number; readonly identity: Promise<HostIdentity> } | undefined;

  constructor(
    ask: (context: CallContext) => Promise<HostIdentity>,
    lifeMs: number,
    now: () => number = () => performance.now(),
  ) {
    this.#ask = ask;
    this.#lifeMs = lifeMs;
    this.#now = now;
  }

  async get(context: CallContext): Promise<HostIdentity> {
    if (this.#known === undefined || this.#now() >= this.#known.until) {
      const identity = this.#ask(context);
      const known = { until: this.#now() + this.#lifeMs, identity };
      this.#known = known;
      // A failure is not remembered.
      identity.catch(() => {
        if (this.#known === known) this.#known = undefined;
      });
    }
    return this.#known.identity;
  }
}
