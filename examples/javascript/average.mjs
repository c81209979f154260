// The average of a column over organizations, as examples/average, in JavaScript: each gives a sum and a count, never a row.
import { tableFromIPC } from "apache-arrow";
import { encodeInput, Proxy } from "./proxy.mjs";

const FUNCTIONS = { average, partial_average: partialAverage };

/** Return the average of a column and how many values it is made of; null if there are none. */
async function average(proxy, run, { column }) {
  const taskId = await proxy.createSubtask(...subtask(run, "partial_average", { column }));
  const results = await proxy.results(taskId);
  const missing = results.filter((result) => result.state !== "RUN_STATE_COMPLETED");
  if (missing.length) throw new Error(`no result of ${missing.map((one) => one.organization.name).join(", ")}`);
  const parts = results.map((result) => JSON.parse(result.content));
  const sum = parts.reduce((total, part) => total + part.sum, 0);
  const count = parts.reduce((total, part) => total + part.count, 0);
  return { average: count ? sum / count : null, count };
}

/** Return the sum of a column's values, and how many there are. */
async function partialAverage(proxy, run, { column }) {
  const table = tableFromIPC(await proxy.readTable(run.labels[0], [column]));
  let sum = 0;
  let count = 0;
  for (const value of table.getChild(column)) {
    if (value === null) continue;
    sum += Number(value);
    count += 1;
  }
  return { sum, count };
}

/** A subtask for all members: its head, and its input's content. */
function subtask(run, name, args) {
  const content = encodeInput(name, args);
  const head = {
    key: name,
    organizationIds: run.members.map((member) => member.organizationId),
    labels: run.labels,
    inputs: [{ sizeBytes: content.length }],
  };
  return [head, content];
}

const proxy = new Proxy();
const run = await proxy.context();
let code = 0;
try {
  const wanted = FUNCTIONS[run.input.function];
  if (!wanted) throw new Error(`there is no function ${run.input.function}; there are ${Object.keys(FUNCTIONS).join(", ")}`);
  await proxy.writeResult(await wanted(proxy, run, JSON.parse(run.input.argumentsJson || "{}")));
} catch (error) {
  console.error(error);
  await proxy.writeFailure(error.message);
  code = 1;
}
process.exit(code);
