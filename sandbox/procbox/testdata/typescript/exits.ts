import process from 'node:process';

console.error('ended while it was loaded');
process.exit(3);
