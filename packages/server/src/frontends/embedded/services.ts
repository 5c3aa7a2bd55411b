/** The operations on services and tasks. */
import { StorageError, notFound } from "@libstorage/model";
import type { CallContext, ServiceInfo, VolumeService } from "@libstorage/model";
import type { StorageService } from "../../core/service.js";
import { instanceOf } from "./calls.js";
import type { Reads } from "./reads.js";
import { taskNumber, taskOf } from "./tasks.js";

function serviceInfo(
  service: StorageService,
  withInstance: boolean,
  context: CallContext,
): ServiceInfo {
  const { name, info: driver, exporter, settings } = service;
  const instance = withInstance ? service.instanceInspect(instanceOf(service, context)) : undefined;
  // In wire order.
  return {
    name,
    ...(instance !== undefined && { instance }),
    driver,
    ...(exporter !== undefined && { exporter: exporter.name }),
    ...(settings.shareable && { shareable: true }),
  };
}

function abilitiesOf({
  abilities,
  driver,
  exporter,
  content: { formats },
}: StorageService): Pick<ServiceInfo, "abilities" | "mutable" | "isHostBound" | "contentFormats"> {
  const isHostBound = exporter === undefined && driver.isHostBound === true;
  return {
    abilities: [...abilities],
    ...(driver.mutable.length > 0 && { mutable: [...driver.mutable] }),
    ...(isHostBound && { isHostBound }),
    ...(formats.length > 0 && { contentFormats: [...formats] }),
  };
}

/** What services there are. */
export function serviceOperations(
  reads: Reads,
): Pick<VolumeService, "services" | "serviceInspect"> {
  return {
    services: async ({ instance = false }, _body, context) =>
      Object.fromEntries(
        [...reads.storage.services.keys()]
          .toSorted()
          .map((name) => [name, serviceInfo(reads.storage.service(name), instance, context)]),
      ),
    serviceInspect: async ({ service, instance = false, ...wanted }, _body, context) => {
      const found = reads.storage.service(service);
      const info = serviceInfo(found, instance, context);
      const capacity = wanted.capacity === true ? await found.capacity() : undefined;
      return {
        ...info,
        ...(wanted.abilities === true && abilitiesOf(found)),
        ...(capacity !== undefined && { capacity }),
        ...(wanted.contents === true && { contents: [...found.content.kept()] }),
      };
    },
  };
}

/** Work that goes on, and its end. */
export function taskOperations(
  reads: Reads,
): Pick<VolumeService, "tasks" | "taskInspect" | "taskCancel"> {
  const { tasks } = reads.storage.operations;
  return {
    tasks: async () =>
      Object.fromEntries(tasks.all().map((record) => [String(record.id), taskOf(record)])),
    taskInspect: async ({ taskID }) => {
      const record = tasks.find(taskNumber(taskID));
      if (record === undefined) throw notFound("task", taskID);
      return taskOf(record);
    },
    taskCancel: async ({ taskID }, _body, context) => {
      const id = taskNumber(taskID);
      const task = tasks.live(id);
      if (task === undefined || task.isDone) {
        const record = tasks.find(id);
        if (record === undefined) throw notFound("task", taskID);
        throw new StorageError(
          "failed-precondition",
          `task ${taskID} (${record.operation}) has ended already with ${record.state}`,
          { task: id, state: record.state },
        );
      }
      task.cancel(context.who ?? "the caller");
      return taskOf(task.record);
    },
  };
}
