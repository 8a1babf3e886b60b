// A PouchDB that a test speaks to: a line of JSON {id, code} in, a line {id, value} or {id, error} out.
//
// `code` is the body of an async function. It has PouchDB; `local(name)`, a database in memory that stays; `kept`, an
// object for what is to stay between calls; and whatever `given` names.
"use strict";

const modules = process.argv[2];
const load = (name) => require(require.resolve(name, { paths: [modules] }));
const PouchDB = load("pouchdb-core")
  .plugin(load("pouchdb-adapter-memory"))
  .plugin(load("pouchdb-adapter-http"))
  .plugin(load("pouchdb-replication"))
  .plugin(load("pouchdb-find"));

const locals = new Map();
const local = (name) => {
  if (!locals.has(name)) locals.set(name, new PouchDB(name, { adapter: "memory" }));
  return locals.get(name);
};
const kept = {};
const AsyncFunction = (async () => {}).constructor;

const plain = (error) => ({
  name: error.name,
  status: error.status,
  message: error.message || error.reason,
  text: String(error.stack || error),
});

const answer = (told) => process.stdout.write(JSON.stringify(told) + "\n");

async function run({ id, code, given }) {
  try {
    const names = Object.keys(given);
    const body = new AsyncFunction("PouchDB", "local", "kept", ...names, code);
    const value = await body(PouchDB, local, kept, ...names.map((name) => given[name]));
    answer({ id, value: value === undefined ? null : value });
  } catch (error) {
    answer({ id, error: plain(error) });
  }
}

require("readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => run(JSON.parse(line)))
  .on("close", () => process.exit(0));
