export default ({ res }: any) => {
  return res.text('never';
};
