module.exports = async (context) => {
  return context.res.text('never';
};
